"""Servers of the standard library that end at once."""

import threading
from socketserver import BaseServer

SHUTDOWN_CHECK_S = 0.02
"""Interval in which a server notices `shutdown`; half a second by default."""


def run_in_thread(server: BaseServer) -> threading.Thread:
    """Answers requests in a new thread until `server.shutdown` is called; returns the thread."""
    thread = threading.Thread(target=server.serve_forever, args=(SHUTDOWN_CHECK_S,), daemon=True)
    thread.start()
    return thread
