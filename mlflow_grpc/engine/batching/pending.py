"""A request that waits for its answer, alone or in a batch.

Rule of this module: it decides nothing, and is used from the event loop only. See `batcher` for the queue.
"""

import asyncio
import time
from typing import Any

from mlflow_grpc.engine.requests import Request


class PendingRequest:
    """One request that waits for its answer."""

    __slots__ = ("batch", "deadline", "future", "queued_at", "request")

    def __init__(self, request: Request[object], deadline: float, future: "asyncio.Future[Any]") -> None:
        """Starts waiting.

        Args:
            request: What the caller sent.
            deadline: On the clock of `time.monotonic`, in seconds.
            future: Receives the answer or the error.

        """
        self.request = request
        self.deadline = deadline
        self.queued_at = time.monotonic()
        self.future = future
        self.batch: RunningBatch | None = None

    def is_waiting(self) -> bool:
        """Returns False once the caller has left or its deadline has passed."""
        return not self.future.done() and time.monotonic() < self.deadline

    def resolve(self, answer: object) -> None:
        """Gives the caller its answer, unless it has left."""
        if not self.future.done():
            self.future.set_result(answer)

    def fail(self, error: Exception) -> None:
        """Gives the caller an error, unless it has left."""
        if not self.future.done():
            self.future.set_exception(error)


class RunningBatch:
    """The task of requests that run together in a thread.

    It does not hold the requests, which refer to it: reference cycles would keep every call until the garbage
    collector finds it.
    """

    __slots__ = ("task", "waiting")

    def __init__(self, requests: list[PendingRequest]) -> None:
        self.waiting = len(requests)
        self.task: asyncio.Task[None] | None = None
        for pending in requests:
            pending.batch = self

    def caller_left(self) -> None:
        """Stops waiting for the thread once the last caller has left."""
        self.waiting -= 1
        if not self.waiting and self.task is not None:
            self.task.cancel()
