"""What Python 3.10 lacks.

Rule of this module: a function goes when the oldest Python of the client has it.
"""

import asyncio
import sys
from typing import Any


def is_cancelled(task: "asyncio.Task[Any] | None") -> bool:
    """Whether somebody has asked a task to end.

    Python 3.10 does not tell: there a task whose call has been closed under it counts as not asked.
    """
    if sys.version_info >= (3, 11):
        return task is not None and task.cancelling() > 0
    return False
