"""The calls that are open: ending them at shutdown, and those whose requests never arrive.

Rule of this module: used from the event loop only. It cancels tasks; what callers are told is decided in `dispatch`.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from mlflow_grpc.services.arrivals import Arrivals

if TYPE_CHECKING:
    from mlflow_grpc.services.call_context import CallContext

MAX_READ_S = 300.0
"""Maximum time for a request to arrive, in seconds, unless the time limit of a call is longer."""


class OpenCalls:
    """Registry of the calls that have arrived and not ended."""

    def __init__(self) -> None:
        self.arrivals = Arrivals()
        self.is_closing = False
        """True once every call is being ended, because the server stops."""
        self._calls: dict[asyncio.Task[Any], CallContext] = {}

    def add(self, task: "asyncio.Task[Any]", call: "CallContext") -> None:
        """Registers a call that has arrived."""
        self._calls[task] = call
        self.arrivals.note(call.started_at)

    def remove(self, task: "asyncio.Task[Any]") -> None:
        """Removes a call whose answer is complete."""
        self._calls.pop(task, None)

    async def end_streams(self) -> None:
        """Stops reading from streams, and waits until the requests that were read have been answered."""
        tasks = []
        for task, call in self._calls.items():
            if call.drain():
                tasks.append(task)
        if tasks:
            await asyncio.wait(tasks)

    def cancel_overdue(self, now: float, timeout_s: float) -> None:
        """Ends calls whose requests did not arrive in time.

        Args:
            now: On the clock of `time.monotonic`, in seconds.
            timeout_s: Time limit of a call, in seconds.

        """
        latest_start = now - max(timeout_s, MAX_READ_S)
        for task, call in self._calls.items():
            if not call.is_read and not call.is_overdue and call.started_at < latest_start:
                call.is_overdue = True
                task.cancel()

    def cancel_all(self) -> None:
        """Ends every open call.

        These are watchers of health, which never end by themselves and would hold up `Server.stop`, and calls to the
        model that the drain did not wait for.
        """
        self.is_closing = True
        for task in self._calls:
            task.cancel()
