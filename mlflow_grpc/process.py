"""How a process of ours begins and ends."""

import os
import signal
import sys
import threading
from typing import NoReturn

SHUTDOWN_LIMIT_S = 3.0
"""How long exit handlers and threads that a model has left may take, in seconds."""


def occupy_standard_streams() -> None:
    """Opens the null device as stdin, stdout or stderr where it is closed.

    A daemon tool may close them; the next file that is opened then takes the number, and what is meant for
    a terminal goes into a socket. libuv aborts when it is to close such a one. Python has no object for a stream that
    was closed when it started; whoever writes to it by its name would fail.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # POSIX: the lowest free number, which is this one.
            os.set_inheritable(number, True)  # Workers start with the same streams.
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))


def ending_signals() -> tuple[signal.Signals, ...]:
    """The signals that end a server: SIGTERM, SIGINT and, unless it is ignored as under nohup, SIGHUP.

    SIGHUP is what a terminal sends when it closes, often twice; so a second signal is one of the others.
    """
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGTERM, signal.SIGINT, *hangup)


def end_process(code: int) -> NoReturn:
    """Ends the process in bounded time: exit handlers run, but a thread that never ends does not hold it."""
    deadline = threading.Timer(SHUTDOWN_LIMIT_S, os._exit, (code,))
    deadline.daemon = True
    deadline.start()
    sys.exit(code)
