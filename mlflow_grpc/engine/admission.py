"""Admission control: which calls may enter, and how many are in the server.

Rule of this module: used from the event loop only, so check-then-act needs no lock. A refusal costs next to nothing,
because under overload there are more refusals than answers.

A call is refused if there are too many. It is also refused if the calls before it will take longer than it has time:
waiting would only end in DEADLINE_EXCEEDED, and a caller that is refused at once can go elsewhere.

Two other modules refuse calls too: `services.named_models`, for RPCs that name their model in the request, and
`http.arriving_bodies`, if a body does not fit.

It has more than 300 lines, because each way into the server stands beside its way out.
"""

import asyncio
import random
import time
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Self

from mlflow_grpc.engine.stream_queue import StreamQueue
from mlflow_grpc.engine.throughput import Throughput
from mlflow_grpc.errors import NotReady, Overloaded, TimeLimitExceeded
from mlflow_grpc.telemetry.models import ModelMetrics, Refusal


class Stage(Enum):
    """Stage of a server's life; the value is the error message for callers while it is not OPEN."""

    LOADING = "The model is still being loaded. Try again in a moment."
    OPEN = ""
    DRAINING = "The server is shutting down. Try again: another server may take the call."


_REFUSALS = {Stage.LOADING: Refusal.LOADING, Stage.DRAINING: Refusal.DRAINING}

MIN_RETRY_S, MAX_RETRY_S = 0.01, 5.0
"""Minimum and maximum retry delay that a refused caller gets, in seconds."""

STREAMS_SHARE = 0.5
"""Share of the limits that requests of streams may use, so that unary calls still get in."""

MIN_ARRIVING_LIMIT = 128
"""Lowest limit on calls that are open without a complete request, and on streams; the limit on calls if it is higher.
"""


_LEFT = (TimeLimitExceeded, asyncio.CancelledError, GeneratorExit)
"""Errors of requests whose time ran out or whose callers left; GeneratorExit ends a streamed answer early."""


class Admission:
    """Admits calls while the stage is OPEN and there is room, and knows when the last one has left.

    A call is open from its arrival (`admit_call`) to its end. Its request is admitted once it has been read
    (`admit_request`), and holds room for its payload until it has been answered.
    """

    def __init__(
        self,
        *,
        max_requests: int,
        max_bytes: int,
        concurrency: int,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        metrics: ModelMetrics | None = None,
    ) -> None:
        """Starts in the stage LOADING.

        Args:
            max_requests: Maximum number of admitted requests, waiting or running.
            max_bytes: Maximum size of their payloads together, and of the responses that callers have not read yet. A
                larger one is admitted while it is alone.
            concurrency: Number of requests that run at a time; the others wait.
            timeout_s: Time limit of a call in seconds, whatever its caller's deadline is.
            clock: Returns the time in seconds.
            metrics: Where refusals are counted; None if nowhere.

        """
        self._metrics = metrics
        self.stage = Stage.LOADING
        self.open_calls = 0
        """Calls that have arrived, read or not."""
        self.open_streams = 0
        """Streams of requests that are open."""
        self.admitted_requests = 0
        """Requests that have been admitted and not answered yet."""
        self.unsent_responses = 0
        """Large responses that callers have not read yet."""
        self.throughput = Throughput()
        self._bytes = 0
        self._unsent_bytes = 0
        self._max_requests = max_requests
        self._max_arriving = max(max_requests, MIN_ARRIVING_LIMIT)
        self._max_bytes = max_bytes
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._clock = clock
        self._changed_at = 0.0  # When a request was last admitted or answered.
        self._queue = StreamQueue(
            self._has_room_for_streams, self._acquire_for_stream, partial(self.release_in_order, answered=False)
        )
        self._empty = asyncio.Event()
        self._empty.set()

    def admit_call(self, time_remaining_s: Callable[[], float | None] = lambda: None) -> None:
        """Opens a call of which nothing has been read; it has to be closed by `close_call`.

        Args:
            time_remaining_s: Returns the time until the caller's deadline, in seconds; None if it has none. Called
                only while requests wait.

        Raises:
            NotReady: The model is being loaded, or the server is draining.
            Overloaded: There are too many calls, or those that wait take longer than the caller has time.

        """
        self.check()
        if self.admitted_requests > self._concurrency:
            self._check_wait(time_remaining_s())
        if self.open_calls - self.admitted_requests >= self._max_arriving:
            self._count(Refusal.UNREAD_REQUESTS)
            raise Overloaded(
                "Too many calls are open without a complete request. Try again later.",
                retry_after_s=self._retry_s(),
            )
        self.open_calls += 1

    def close_call(self) -> None:
        """Closes a call that `admit_call` opened."""
        self.open_calls -= 1

    def admit_stream(self) -> None:
        """Opens a stream of requests, which are admitted one by one; it has to be closed by `close_stream`.

        Streams have a limit of their own, so that those that are idle leave the room of calls alone.

        Raises:
            NotReady: The model is being loaded, or the server is draining.
            Overloaded: There are too many streams or calls.

        """
        self.check()
        if self.open_streams >= self._max_arriving:
            self._count(Refusal.OPEN_STREAMS)
            raise Overloaded(
                "Too many streams are open. Close those that you do not use, or try again later.",
                retry_after_s=MAX_RETRY_S * _jitter(),
            )
        self.open_streams += 1

    def close_stream(self) -> None:
        """Closes a stream that `admit_stream` opened."""
        self.open_streams -= 1

    def check(self) -> None:
        """Refuses a call if there is no room for another one.

        Raises:
            NotReady: The model is being loaded, or the server is draining.
            Overloaded: There are too many calls.

        """
        if self.stage is not Stage.OPEN:
            self._count(_REFUSALS[self.stage])
            raise NotReady(self.stage.value)
        if self.admitted_requests >= self._max_requests:
            self._count(Refusal.QUEUE_CALLS)
            raise Overloaded(
                "The number of waiting calls has reached the server's limit. Try again later, or more slowly.",
                retry_after_s=self._retry_s(),
            )

    def _check_wait(self, time_remaining_s: float | None) -> None:
        wait_s = self.throughput.wait_s(self.open_calls + 1)
        limit_s = self._timeout_s if time_remaining_s is None else min(self._timeout_s, time_remaining_s)
        if wait_s is not None and wait_s > limit_s:
            self._count(Refusal.DEADLINE)
            raise Overloaded(
                "Answering the waiting calls takes longer than this call has time. Try again later, or more slowly.",
                retry_after_s=min(max(wait_s - limit_s / 2, MIN_RETRY_S), MAX_RETRY_S) * _jitter(),
            )

    def admit_request(self, size: int) -> "AdmittedRequest":
        """Admits a request that has been read; the context manager that is returned releases its room.

        A request whose time ran out or whose caller left does not count as answered: the model may not have run for it.

        Args:
            size: Size of its payload, in bytes or characters.

        Raises:
            NotReady: The model is being loaded, or the server is draining.
            Overloaded: There is no room for it.

        """
        self.check()
        if self.admitted_requests and self._bytes + size > self._max_bytes:
            self._count(Refusal.QUEUE_BYTES)
            raise Overloaded(
                "The payloads of waiting calls have reached the server's limit. Try again later, or more slowly.",
                retry_after_s=self._retry_s(),
            )
        self._acquire(size)
        return AdmittedRequest(self, size)

    async def admit_in_order(self, size: int) -> None:
        """Waits for room for a request of a stream and admits it; it has to be given to `release_in_order`.

        A request that waits already is admitted even if the server drains meanwhile.

        Args:
            size: Size of its payload, in bytes or characters.

        Raises:
            NotReady: The model is being loaded, or the server is draining.

        """
        if self.stage is not Stage.OPEN:
            self._count(_REFUSALS[self.stage])
            raise NotReady(self.stage.value)
        await self._queue.wait(size)

    def release_in_order(self, size: int, *, answered: bool = True) -> None:
        """Ends a request that `admit_in_order` admitted.

        Args:
            size: The size that it was admitted with.
            answered: False if its time ran out or its caller left, so that the model may not have run for it.

        """
        self.open_calls -= 1
        self.release_request(size, answered=answered)

    def reserve_response(self, size: int) -> None:
        """Reserves room for a response that is kept until its caller reads it; to be given to `free_response`.

        Args:
            size: Size of the response in bytes.

        Raises:
            Overloaded: The responses that callers have not read yet are too large.

        """
        if self.unsent_responses and self._unsent_bytes + size > self._max_bytes:
            self._count(Refusal.UNREAD_RESPONSES)
            raise Overloaded(
                "The answers that callers have not read yet have reached the server's limit. Read them, or try again "
                "later.",
                retry_after_s=MAX_RETRY_S,
            )
        self.unsent_responses += 1
        self._unsent_bytes += size
        self._empty.clear()

    def free_response(self, size: int) -> None:
        """Frees the room of a response whose caller has read it or has left."""
        self.unsent_responses -= 1
        self._unsent_bytes -= size
        self._notify_if_empty()

    @property
    def is_idle(self) -> bool:
        """True if no call and no stream is open, and callers have read all large responses."""
        return not (self.open_calls or self.open_streams or self.admitted_requests or self.unsent_responses)

    async def wait_until_empty(self) -> None:
        """Returns once every request has been answered and every large response has been read."""
        while self.admitted_requests or self.unsent_responses:  # A request ends just before its response is reserved.
            await self._empty.wait()

    def _acquire(self, size: int) -> None:
        if not self.admitted_requests:
            self._empty.clear()
        now = self._clock()
        if self.admitted_requests > self._concurrency:
            self.throughput.passed(now - self._changed_at, self.admitted_requests)
        self._changed_at = now
        self.admitted_requests += 1
        self._bytes += size

    def release_request(self, size: int, *, answered: bool) -> None:
        """Releases the room of an admitted request.

        Args:
            size: The size that it was admitted with.
            answered: False if its time ran out or its caller left, so that the model may not have run for it.

        """
        now = self._clock()
        if self.admitted_requests > self._concurrency:
            self.throughput.passed(now - self._changed_at, self.admitted_requests, answered=answered)
        self._changed_at = now
        self._bytes -= size
        self.admitted_requests -= 1
        if self._queue:
            self._queue.admit()
        self._notify_if_empty()

    def _count(self, reason: Refusal) -> None:
        if self._metrics is not None:
            self._metrics.refused(reason)

    @property
    def queued_requests(self) -> int:
        """Requests of streams that wait for room."""
        return len(self._queue)

    def _notify_if_empty(self) -> None:
        if not self.admitted_requests and not self.unsent_responses:
            self._empty.set()

    def _has_room_for_streams(self, size: int) -> bool:
        return not self.admitted_requests or (
            self.admitted_requests < self._max_requests * STREAMS_SHARE
            and self._bytes + size <= self._max_bytes * STREAMS_SHARE
        )

    def _acquire_for_stream(self, size: int) -> None:
        self.open_calls += 1
        self._acquire(size)

    def _retry_s(self) -> float:
        """Time in which half of the calls will have left; spread, so that not all callers come back at once."""
        silent_s = self._clock() - self._changed_at
        half_s = max((self.throughput.wait_s(self.admitted_requests) or 0.0) / 2, silent_s / 2, MIN_RETRY_S)
        return min(half_s, MAX_RETRY_S) * _jitter()


class AdmittedRequest:
    """Context manager that releases the room of a request."""

    __slots__ = ("_admission", "_size", "is_given_up")

    def __init__(self, admission: Admission, size: int) -> None:
        self._admission = admission
        self._size = size
        self.is_given_up = False
        """True once `give_up` has been called."""

    def __enter__(self) -> Self:
        return self

    def give_up(self) -> None:
        """Releases the room of the request and of its call, whose caller does not read what it gets."""
        self.is_given_up = True
        self._admission.close_call()
        self._admission.release_request(self._size, answered=False)

    def __exit__(self, error_type: type[BaseException] | None, error: object, traceback: object) -> None:
        if self.is_given_up:
            self._admission.open_calls += 1  # Until `close_call`, which is about to follow.
            return
        is_unanswered = error_type is not None and issubclass(error_type, _LEFT)
        self._admission.release_request(self._size, answered=not is_unanswered)


def _jitter() -> float:
    """Random factor that keeps callers from coming back all at once."""
    return random.uniform(0.75, 1.25)  # noqa: S311 - nothing secret
