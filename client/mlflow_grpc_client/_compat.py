"""Functions that Python 3.10 lacks.

Rule of this module: a function goes when the oldest Python of the client has it.
"""

import asyncio
import sys


def is_current_task_cancelled() -> bool:
    """Returns True if someone has cancelled the current task, or there is none.

    Python 3.10 cannot tell a cancelled task from a task whose call was closed, so it counts both as not cancelled.
    """
    task = asyncio.current_task()
    if sys.version_info >= (3, 11):
        return task is None or task.cancelling() > 0
    return task is None
