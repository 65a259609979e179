"""Turns of tests that run in several processes of pytest-xdist: beside others, or alone."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

ENTRANCE, ROOM = (Path(__file__).parents[1] / name for name in ("conftest.py", "__init__.py"))
"""Two files to lock; their content does not matter."""


@contextlib.contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """Waits until a test may run.

    A test that runs alone waits at the entrance until all running tests have ended. No other test enters meanwhile, so
    its turn is certain to come.
    """
    with ENTRANCE.open() as entrance, ROOM.open() as room:
        fcntl.flock(entrance, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(entrance, fcntl.LOCK_UN)
        try:
            yield
        finally:
            # Unlocked explicitly, because a process that the test has forked may keep the files open for longer.
            for file in (room, entrance):
                fcntl.flock(file, fcntl.LOCK_UN)
