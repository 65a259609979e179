"""Child processes that start as copies of this one.

Rule of this module: who forks has no threads but those that write the log and those of libraries that see to a fork.
"""

import os
import signal
import sys
import warnings
from collections.abc import Iterable
from typing import Self


class Fork:
    """A child process, as its parent sees it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    @classmethod
    def start(cls, held_back: Iterable[signal.Signals]) -> Self | None:
        """Starts a child; both go on from here.

        Args:
            held_back: Signals that wait in the child until it unblocks them.

        Returns:
            The child; None in the child itself.

        Raises:
            OSError: The machine lets no process start.

        """
        before, pid = signal.pthread_sigmask(signal.SIG_BLOCK, held_back), -1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any thread.
                pid = os.fork()
        finally:
            if pid:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return cls(pid) if pid else None

    @property
    def exitcode(self) -> int | None:
        """Its exit code, the number of the signal that ended it with a minus, or None while it lives."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def kill(self) -> None:
        """Ends it at once."""
        if self.exitcode is None:
            os.kill(self.pid, signal.SIGKILL)

    def join(self) -> None:
        """Waits until it has ended."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def seed_again() -> None:
    """Has random numbers differ from those of other copies; Python's own do so by themselves."""
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()


def leave_stdin() -> None:
    """Gives the null device to whoever reads stdin, which is the parent's."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
