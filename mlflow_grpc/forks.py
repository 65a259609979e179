"""Child processes that start as copies of this process.

Rule of this module: a process that forks has only threads that survive it: those of the log, and of libraries that
handle forks.
"""

import os
import signal
import sys
import warnings
from collections.abc import Iterable
from typing import Self


class Fork:
    """A child process, as its parent uses it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    @classmethod
    def start(cls, held_back: Iterable[signal.Signals]) -> Self | None:
        """Forks; both processes return from this call.

        Args:
            held_back: Signals that stay blocked in the child until it unblocks them.

        Returns:
            The child; None in the child itself.

        Raises:
            OSError: No further process can be started.
        """
        before, pid = signal.pthread_sigmask(signal.SIG_BLOCK, held_back), -1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns if there are any threads.
                pid = os.fork()
        finally:
            if pid:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return cls(pid) if pid else None

    @property
    def exitcode(self) -> int | None:
        """Returns the exit code, the negative number of the signal that ended it, or None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def kill(self) -> None:
        """Kills the child."""
        if self.exitcode is None:
            os.kill(self.pid, signal.SIGKILL)

    def join(self) -> None:
        """Waits until the child has ended."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def seed_again() -> None:
    """Seeds random number generators again, so that copies differ; Python's own does so by itself."""
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()


def leave_stdin() -> None:
    """Replaces stdin, which belongs to the parent, by the null device."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
