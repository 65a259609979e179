"""Files that the processes of pytest-xdist share, so that only one of them makes each."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Returns a directory that all processes of this run of pytest share.

    Args:
        factory: The fixture `tmp_path_factory`.
        name: Name of the directory.
        make: Makes the directory; the other processes wait for it.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / name).exists():
            make(root / f"{name}.unfinished")
            (root / f"{name}.unfinished").rename(root / name)
    return root / name
