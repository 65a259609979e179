"""The way of a request through the engine: admit, decode, batch or run, encode.

Rule of this module: every request ends in an answer or in a ServingError. The event loop only waits; a call that takes
long, or never ends, holds up no other.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing
from functools import partial
from typing import Protocol, Self

from mlflow_grpc.daemon_threads import in_daemon_thread
from mlflow_grpc.engine.admission import Admission, AdmittedRequest
from mlflow_grpc.engine.answer import answer, answer_chunks
from mlflow_grpc.engine.batching.batcher import Batcher
from mlflow_grpc.engine.chunks import ResponseChunks
from mlflow_grpc.engine.concurrency import LoopSample
from mlflow_grpc.engine.opened import Opened
from mlflow_grpc.engine.report import report
from mlflow_grpc.engine.requests import AnswerT, Request
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.engine.thread_pool import ModelThreadPool
from mlflow_grpc.engine.time_limit import TimeLimit
from mlflow_grpc.errors import NotReady, ResponseReadTimeout, TimeLimitExceeded, Unsupported
from mlflow_grpc.payload.codec import RawPayload
from mlflow_grpc.settings import Settings
from mlflow_grpc.telemetry.models import ModelMetrics

MAX_BATCHED_SIZE = 16_384
"""Maximum size of a payload that is batched, in bytes or characters: the other calls of the batch wait while it is
decoded, for well under a millisecond."""

LARGE_RESPONSE = 65_536
"""Size of a response, in bytes, from which it stays in the server until its caller reads it: HTTP/2's default window.
"""

MAX_UNREAD_S = 300.0
"""Maximum time that a message of a stream waits for its caller to read it, in seconds, unless the time limit of a call
is longer: as long as a request may take to arrive."""


class AnswerRequest(Protocol):
    """Answers an admitted request, with its size in bytes or characters."""

    async def __call__(self, request: Request[AnswerT], size: int, limit: TimeLimit, /) -> AnswerT:
        """Returns the answer."""


class Engine:
    """Runs the requests to one model, once it has been given the model."""

    def __init__(
        self,
        threads: ModelThreadPool,
        admission: Admission,
        *,
        timeout_s: float,
        metrics: ModelMetrics | None = None,
    ) -> None:
        """Starts without a model.

        Args:
            threads: Where the model runs.
            admission: Which calls may enter.
            timeout_s: Time limit of a call in seconds, waiting included.
            metrics: Where requests are counted; None if nowhere.

        """
        self.metrics = metrics
        self.threads = threads
        self.admission = admission
        self._timeout_s = timeout_s
        self._answer: AnswerRequest = self._run
        self._model: ServableModel | None = None
        self._batcher: Batcher | None = None
        self._open_call = Opened(self, admission.close_call)
        self._open_stream = Opened(self, admission.close_stream)
        self._parsing = asyncio.Lock()

    @classmethod
    def from_settings(cls, settings: Settings, metrics: ModelMetrics | None = None) -> Self:
        """Makes an engine with threads and limits of its own, so that no model can take another's."""
        admission = Admission(
            max_requests=settings.queue_calls,
            max_bytes=settings.queue_bytes,
            concurrency=settings.threads,
            timeout_s=settings.timeout_s,
            metrics=metrics,
        )
        return cls(ModelThreadPool(settings.threads), admission, timeout_s=settings.timeout_s, metrics=metrics)

    def host(self, model: ServableModel) -> None:
        """Gives the engine its model."""
        self._model = model
        self.threads.context = model.context
        if (fast_path := model.fast_path) is not None and fast_path.runner is not None:
            self.admission.throughput.is_batched = True
            self._batcher = Batcher(self.threads, model, fast_path, self.admission, self.metrics)

    def add_layer(self, around: Callable[[AnswerRequest], AnswerRequest]) -> None:
        """Puts a layer, such as a cache, around the answering of admitted requests; not of answers in chunks."""
        self._answer = around(self._answer)

    def close(self) -> None:
        """Ends the threads of an engine without calls, and lets go of its model."""
        self.threads.close()
        self._answer = self._run
        if self._batcher is not None:
            self._batcher.close()
        self._model = self._batcher = None

    def adapt(self, sample: LoopSample) -> None:
        """Runs fewer requests at a time while they keep the event loop from its work."""
        self.threads.adapt(sample, requests=self.admission.admitted_requests)

    def check(self) -> None:
        """Refuses a call for which there is no room now; raises the errors of `Admission.check`."""
        self.admission.check()

    def open_call(self, time_remaining_s: Callable[[], float | None]) -> "AbstractContextManager[Engine]":
        """Admits a call of which nothing has been read; see `Admission.admit_call`."""
        self.admission.admit_call(time_remaining_s)
        return self._open_call

    def open_stream(self) -> "AbstractContextManager[Engine]":
        """Admits a stream of requests; see `Admission.admit_stream`."""
        self.admission.admit_stream()
        return self._open_stream

    async def asks_for_stream(self, payload: RawPayload, deadline: float | None) -> bool:
        """Returns True if a payload asks for its answer in chunks, which only a model that streams has.

        Large payloads are parsed one at a time, outside of the event loop and of the model's threads.

        Args:
            payload: What the caller sent.
            deadline: As in `predict`.

        Raises:
            TimeLimitExceeded: The payload was not parsed in time.

        """
        if not self.model.model.streams:
            return False
        asks = partial(self.model.codec.asks_for_stream, payload)
        if len(payload) <= MAX_BATCHED_SIZE:
            return asks()
        with TimeLimit(self._timeout_s, deadline) as limit:
            async with asyncio.timeout(limit.remaining_s), self._parsing:
                return bool(await in_daemon_thread(asks, name="parse"))

    def reserve_response(self, size: int, task: "asyncio.Task[object]") -> None:
        """Reserves room for a large response until its caller has read it.

        Args:
            size: Size of the response in bytes.
            task: Answers the call, and ends once the response has been sent.

        Raises:
            Overloaded: The responses that callers have not read yet are too large.

        """
        if size < LARGE_RESPONSE:
            return
        self.admission.reserve_response(size)
        task.add_done_callback(lambda _: self.admission.free_response(size))

    async def predict(self, request: Request[AnswerT], deadline: float | None) -> AnswerT:
        """Answers one request.

        Args:
            request: What the caller sent.
            deadline: Deadline of the caller, on the clock of `time.monotonic`, in seconds; None if it has none.

        Raises:
            NotReady: The model is being loaded, or the server is draining.
            Overloaded: There is no room for the request.
            TimeLimitExceeded: The caller's deadline passed, or the server's time limit.
            ServingError: The payload was refused, the model failed, or its output cannot be written.

        """
        size = request.size
        request.progress.trace = request.observer.trace
        with self.admission.admit_request(size):
            try:
                answered = await self._answer(request, size, TimeLimit(self._timeout_s, deadline))
            except BaseException as error:
                report(request, error, self.metrics, deadline)
                raise
            report(request, None, self.metrics, deadline)
            return answered

    async def _run(self, request: Request[AnswerT], size: int, limit: TimeLimit) -> AnswerT:
        """Decodes, predicts and encodes: together with other requests if the model is batched, or alone in a thread."""
        with limit:
            if self._batcher is not None and size <= MAX_BATCHED_SIZE:
                return await self._batcher.predict(request, deadline=limit.deadline)
            return await self.threads.run(partial(answer, request, self.model), deadline=limit.deadline)

    async def submit(self, request: Request[AnswerT], deadline: float | None) -> "asyncio.Future[AnswerT]":
        """Admits one request of a stream, in order; waits while there is no room.

        Args:
            request: What the caller sent.
            deadline: As in `predict`. The server's time limit is for waiting and answering together.

        Returns:
            The answer, which may fail as that of `predict`.

        Raises:
            NotReady: The model is being loaded, or the server is draining.
            TimeLimitExceeded: There was no room in time.

        """
        limit = TimeLimit(self._timeout_s, deadline)
        size = request.size
        request.trace_as_stream()
        try:
            with limit:
                async with asyncio.timeout(limit.remaining_s):
                    await self.admission.admit_in_order(size)
        except (TimeLimitExceeded, asyncio.CancelledError) as error:
            report(request, error, self.metrics, deadline)
            raise
        answering = asyncio.ensure_future(self._answer(request, size, limit))

        def release(done: "asyncio.Future[AnswerT]") -> None:
            error = asyncio.CancelledError() if done.cancelled() else done.exception()
            is_late = isinstance(error, TimeLimitExceeded | asyncio.CancelledError)
            self.admission.release_in_order(size, answered=not is_late)
            report(request, error, self.metrics, deadline)

        # A callback, because a task that is cancelled before it starts never runs its `finally`.
        answering.add_done_callback(release)
        return answering

    async def predict_stream(self, request: Request[AnswerT], deadline: float | None) -> AsyncGenerator[AnswerT]:
        """Yields the chunks of the answer of a model that streams, each as soon as it is made.

        Each chunk has the server's time limit for itself. A caller that does not read a chunk for `max_unread_s` loses
        its room and the model's iterator; the error is raised once it reads on. Close the generator
        (`contextlib.aclosing`) if you leave it early.

        Args:
            request: What the caller sent.
            deadline: As in `predict`, for all chunks together.

        Raises:
            Unsupported: The model has no `predict_stream`.
            ResponseReadTimeout: A chunk was not read in time.
            ServingError: As in `predict`.

        """
        model = self.model
        if not model.model.streams:
            raise Unsupported(f"The model {model.model.name} has no predict_stream. Call predict for the whole answer.")
        request.trace_as_stream()
        loop, max_unread_s = asyncio.get_running_loop(), self.max_unread_s
        with self.admission.admit_request(request.size) as admitted:
            try:
                async with aclosing(ResponseChunks(answer_chunks(request, model), self.threads)) as chunks:
                    while (chunk := await chunks.next(TimeLimit(self._timeout_s, deadline))) is not None:
                        unread = loop.call_later(max_unread_s, _give_up, admitted, chunks)
                        try:
                            yield chunk
                        finally:
                            unread.cancel()
                        if admitted.is_given_up:
                            raise ResponseReadTimeout(max_unread_s)  # noqa: TRY301 - counted like any other error
            except BaseException as error:
                report(request, error, self.metrics, deadline)
                raise
            report(request, None, self.metrics, deadline)

    @property
    def max_unread_s(self) -> float:
        """Maximum time that a message of a stream waits for its caller to read it, in seconds."""
        return max(self._timeout_s, MAX_UNREAD_S)

    @property
    def waiting_requests(self) -> int:
        """Number of requests that wait for room, for their batch or for a thread."""
        queued = self.threads.waiting_requests + self.admission.queued_requests
        return queued if self._batcher is None else queued + self._batcher.queued_requests

    @property
    def model(self) -> ServableModel:
        """The model; raises NotReady while it is being loaded."""
        if self._model is None:
            raise NotReady("The model is still being loaded.")
        return self._model


def _give_up(admitted: AdmittedRequest, chunks: ResponseChunks[AnswerT]) -> None:
    """Releases what an answer holds whose caller does not read it."""
    admitted.give_up()
    chunks.abandon()
