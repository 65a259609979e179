"""Signals that processes inherit, and waiting for processes that are not children of the tests."""

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

END_LIMIT_S = 20.0


@contextmanager
def inherited(number: signal.Signals, handler: signal.Handlers | Callable[..., Any]) -> Iterator[None]:
    """Sets whether child processes ignore a signal, independent of the tests' own setting.

    Shells start commands in the background with SIGINT ignored, and nohup with SIGHUP ignored.
    """
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def wait_until_gone(pid: int) -> None:
    """Waits until a process has ended; its parent may not have read its exit code yet."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ready, _, _ = select.select([process], [], [], END_LIMIT_S)
    os.close(process)
    assert ready, f"process {pid} has not ended"
