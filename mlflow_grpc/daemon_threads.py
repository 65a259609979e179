"""Functions in threads that do not delay the exit of the process.

Rule of this module: one thread for each function. Threads that run the model are those of `engine/thread_pool.py`.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

ResultT = TypeVar("ResultT")


class LoadThread(Protocol):
    """A thread that loads models, one after the other."""

    async def call(self, function: Callable[[], ResultT], *, limit_s: float | None = None) -> ResultT:
        """Runs a function in the thread; returns its result or raises its exception.

        Args:
            function: The function.
            limit_s: Maximum duration in seconds.

        Raises:
            TimeoutError: The function took too long.

        """
        ...


class DaemonLoadThread:
    """A daemon thread for each function, for engines that do not offer their main thread."""

    async def call(self, function: Callable[[], ResultT], *, limit_s: float | None = None) -> ResultT:
        """Runs a function; see `LoadThread.call`. A function that takes too long goes on, but its result is lost."""
        async with asyncio.timeout(limit_s):
            return await in_daemon_thread(function, "load-model")


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
