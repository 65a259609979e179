"""What goes into a batch: the calls, and what is known of the model and of the crowd they come in.

Rule of this module: it says what is asked of others; what is done with it is in `batching.py`.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol

from mlflow_grpc.engine.progress import Progress


class Rows(Protocol):
    """What the request of one call was decoded to."""

    @property
    def count(self) -> int:
        """How many rows that is."""
        ...


class Request(Protocol):
    """One call, and how it is answered; every method may raise anything."""

    @property
    def progress(self) -> Progress:
        """Where its time goes; `rows` and `answer` say when its turn has come."""
        ...

    @property
    def size(self) -> int:
        """In bytes or characters."""
        ...

    def rows(self) -> Rows | None:
        """What it comes to as rows; None if it has to be answered by itself."""
        ...

    def encode(self, predictions: Any) -> Any:
        """The answer that predictions for its rows are."""
        ...

    def answer(self) -> Any:
        """Its answer by itself."""
        ...

    def answer_checked(self) -> Any:
        """The same, if it is known that it is not answered as rows."""
        ...


class Batchable(Protocol):
    """How rows are predicted together."""

    def predict(self, members: Sequence[Any]) -> list[Any]:
        """The predictions for the rows of several requests, in order; raises anything if they cannot be told apart."""
        ...


class Crowd(Protocol):
    """The calls to the model that are in the server."""

    @property
    def present(self) -> int:
        """How many there are."""
        ...

    @property
    def in_flight(self) -> int:
        """How many of them have been read."""
        ...


class Member:
    """One call that waits for its answer."""

    __slots__ = ("batch", "deadline", "future", "request", "since")

    def __init__(self, request: Request, deadline: float, future: "asyncio.Future[Any]") -> None:
        """Args:
        request: What is asked.
        deadline: On the clock of `time.monotonic`, in seconds.
        future: Gets the outcome.
        """
        self.request = request
        self.deadline = deadline
        self.since = time.monotonic()
        self.future = future
        self.batch: Batch | None = None

    def settle(self, answer: Any, error: Exception | None) -> None:
        """Gives the caller its outcome, unless it has one or has gone."""
        if self.future.done():
            return
        if error is not None or answer is None:
            self.future.set_exception(error or TimeoutError())
        else:
            self.future.set_result(answer)


class Batch:
    """Members that run together."""

    __slots__ = ("members", "open", "task")

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        self.open = len(members)
        self.task: asyncio.Task[None] | None = None
        for member in members:
            member.batch = self

    def leave(self) -> None:
        """When the last caller has left, so has the reason to wait for the thread."""
        self.open -= 1
        if not self.open and self.task is not None:
            self.task.cancel()
