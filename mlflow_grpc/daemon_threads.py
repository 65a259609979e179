"""Functions in threads that do not delay the exit of the process.

Rule of this module: one thread for each function. Threads that run the model are those of `engine/thread_pool.py`.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

ResultT = TypeVar("ResultT")


async def in_daemon_thread(function: Callable[[], ResultT], name: str) -> ResultT:
    """Runs a function in a daemon thread, which does not delay the exit as an executor's threads would.

    Args:
        function: The function. It goes on if the caller is cancelled, because nothing can stop a thread.
        name: Name of the thread, for tools that list threads.

    Raises:
        BaseException: Any exception of the function.

    """
    outcome: Future[ResultT] = Future()
    outcome.set_running_or_notify_cancel()  # Prevents cancellation.

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001 - it is handed to the waiter
            outcome.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await asyncio.wrap_future(outcome)
