"""Waiting for processes that are not children of the tests."""

import os
import select

END_LIMIT_S = 20.0


def wait_until_gone(pid: int) -> None:
    """Waits until a process has ended; its parent may not have read its exit code yet."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ready, _, _ = select.select([process], [], [], END_LIMIT_S)
    os.close(process)
    assert ready, f"process {pid} has not ended"
