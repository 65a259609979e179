"""How a process of ours ends."""

import os
import sys
import threading
from typing import NoReturn

SHUTDOWN_LIMIT_S = 3.0
"""How long exit handlers and threads that a model has left may take, in seconds."""


def end_process(code: int) -> NoReturn:
    """Ends the process in bounded time: exit handlers run, but a thread that never ends does not hold it."""
    deadline = threading.Timer(SHUTDOWN_LIMIT_S, os._exit, (code,))
    deadline.daemon = True
    deadline.start()
    sys.exit(code)
