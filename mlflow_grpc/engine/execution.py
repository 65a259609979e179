"""Runs a call from request to answer: decode, predict and encode in one visit to a thread.

Rule of this module: every way in which a call can end is a `ServingError` or an answer. The event loop
only waits; a call that takes long, or for ever, holds up no other.
"""

import asyncio
import contextvars
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Self

from mlflow_grpc.engine.admission import Admission
from mlflow_grpc.engine.batching import Batcher
from mlflow_grpc.engine.concurrency import Look
from mlflow_grpc.engine.parts import Parts
from mlflow_grpc.engine.progress import Usage
from mlflow_grpc.engine.requests import Hosted, Plain, RecordRequest, Request, RowsRequest, TellIgnored, TextRequest
from mlflow_grpc.engine.threads import ModelThreads
from mlflow_grpc.errors import CallerGaveUp, NotReady, TimeLimitExceeded, Unsupported
from mlflow_grpc.hosting.model import HostedModel
from mlflow_grpc.payload.codec import Codec
from mlflow_grpc.settings import Settings

if TYPE_CHECKING:
    from mlflow_grpc.payload.typed import TypedCodec
    from mlflow_grpc.payload.typed_rows import RowsCodec

MOST_BATCHED_CHARACTERS = 16_384
"""The longest payload that is put together with others: decoding it takes well under a millisecond, for which they
wait.
"""


class Engine:
    """Runs the calls to one model, once it is given one."""

    def __init__(
        self, threads: ModelThreads, admission: Admission, *, timeout_s: float, shows_exceptions: bool = False
    ) -> None:
        """Args:
        threads: Where models run.
        admission: Which calls may come in.
        timeout_s: The time limit of a call in seconds, waiting for a thread included.
        shows_exceptions: Whether callers are told what the model raised.
        """
        self.threads = threads
        self.admission = admission
        self._timeout_s = timeout_s
        self._shows_exceptions = shows_exceptions
        self._hosted: Hosted | None = None
        self._batcher: Batcher | None = None

    @classmethod
    def of_settings(cls, settings: Settings) -> Self:
        """An engine with threads and bounds of its own, so that no model can take another's."""
        admission = Admission(
            most_calls=settings.queue_calls,
            most_bytes=settings.queue_bytes,
            at_once=settings.threads,
            timeout_s=settings.timeout_s,
        )
        return cls(
            ModelThreads(settings.threads),
            admission,
            timeout_s=settings.timeout_s,
            shows_exceptions=settings.show_exceptions,
        )

    def host(
        self, model: HostedModel, codec: Codec, plain: Plain | None = None, context: contextvars.Context | None = None
    ) -> None:
        """Gives the engine its model.

        Args:
            model: The model.
            codec: The formats of its payloads.
            plain: How plain rows are run, if there is a fast way for this model.
            context: The context variables as loading the model left them; each call runs in a copy.

        """
        if context is not None:
            self.threads.context = context
        self._hosted = Hosted(model, codec, plain, self._shows_exceptions)
        if plain is not None and plain.runner is not None:
            self.admission.throughput.is_batched = True
            self._batcher = Batcher(
                self.threads,
                plain.runner,
                most_rows=plain.most_rows,
                longest_wait_s=plain.longest_wait_s,
                inline=plain.inline,
                crowd=self.admission,
            )

    def text(self, text: str, content_type: str | None, tell_ignored: TellIgnored | None = None) -> TextRequest:
        """A payload of text as a request.

        Args:
            text: The payload.
            content_type: The value of the call's `mlflow-content-type`, None if it has none.
            tell_ignored: Is given the names in the payload that the model ignores, if there are any.

        Raises:
            NotReady: There is no model yet.

        """
        return TextRequest(self._loaded(), text, content_type, tell_ignored)

    def record(self, message: Any, codec: "TypedCodec", tell_ignored: TellIgnored | None = None) -> RecordRequest:
        """One record in a message of the model's own type as a request; raises what `text` raises."""
        return RecordRequest(self._loaded(), codec, message, tell_ignored)

    def rows(self, message: Any, codec: "RowsCodec", tell_ignored: TellIgnored | None = None) -> RowsRequest:
        """Any number of rows in a message of columns as a request; raises what `text` raises."""
        return RowsRequest(self._loaded(), codec, message, tell_ignored)

    def _loaded(self) -> Hosted:
        if self._hosted is None:
            self.admission.check()
            raise NotReady("The model is still being loaded.")
        return self._hosted

    def adapt(self, look: Look) -> None:
        """Runs fewer calls at a time while they keep the event loop from its work.

        Args:
            look: What was seen of the event loop.

        """
        self.threads.adapt(look, calls=self.admission.in_flight)

    async def predict(self, request: Request, *, time_remaining_s: float | None, usage: Usage | None = None) -> Any:
        """Answers one request.

        Args:
            request: What is asked.
            time_remaining_s: How long the caller will wait, in seconds; None if for ever.
            usage: Is told where the time of the request went, when it has ended.

        Raises:
            ServingError: The call failed; which one says how, and who is at fault.

        """
        size = request.size
        self.admission.enter(size)
        answered = True
        try:
            limit_s = self._limit_s(time_remaining_s)
            return await self._answer(request, size, limit_s, time.monotonic() + limit_s)
        except (TimeLimitExceeded, asyncio.CancelledError):
            answered = False
            raise
        finally:
            self.admission.leave(size, answered=answered)
            if usage is not None:
                usage.add(request.progress)

    async def begin(
        self, request: Request, *, time_remaining_s: float | None, usage: Usage | None = None
    ) -> "asyncio.Future[Any]":
        """Lets in one request of a stream, which waits outside while there is no room.

        The server's time limit is for waiting and answering together.

        Args:
            request: What is asked.
            time_remaining_s: How long the caller will wait for the stream, in seconds; None if for ever.
            usage: As in `predict`.

        Returns:
            Its answer, which may end as that of `predict`.

        Raises:
            NotReady: The server is draining.
            TimeLimitExceeded: There was no room in time.

        """
        size = request.size
        limit_s = self._limit_s(time_remaining_s)
        deadline = time.monotonic() + limit_s
        try:
            async with asyncio.timeout(limit_s):
                await self.admission.enter_in_turn(size)
        except TimeoutError:
            raise self._too_late(limit_s) from None
        answering = asyncio.ensure_future(self._answer(request, size, limit_s, deadline))
        # Not in the coroutine: one that is cancelled before it begins does not come to its `finally`.
        answering.add_done_callback(
            lambda done: self.admission.leave_in_turn(
                size, answered=not (done.cancelled() or isinstance(done.exception(), TimeLimitExceeded))
            )
        )
        if usage is not None:
            answering.add_done_callback(lambda _: usage.add(request.progress))
        return answering

    async def predict_stream(
        self, request: Request, *, time_remaining_s: float | None, usage: Usage | None = None
    ) -> AsyncGenerator[Any]:
        """Gives the parts of the answer of a model that streams, each when it is there.

        Each part has the server's time limit for itself. To be closed (`contextlib.aclosing`) if it is left early.

        Args:
            request: What is asked.
            time_remaining_s: How long the caller will wait for all of them, in seconds; None if for ever.
            usage: As in `predict`.

        Raises:
            Unsupported: The model has no `predict_stream`.
            ServingError: The call failed; which one says how, and who is at fault.

        """
        if not request.hosted.model.streams:
            raise Unsupported(
                f"The model {request.hosted.model.name} has no predict_stream. Call predict for the whole answer."
            )
        size = request.size
        self.admission.enter(size)
        try:
            last = None if time_remaining_s is None else time.monotonic() + time_remaining_s
            async with aclosing(Parts(request.parts(), self.threads)) as parts:
                while True:
                    left_s = None if last is None else last - time.monotonic()
                    limit_s = self._limit_s(left_s)
                    try:
                        part = await parts.next(deadline=time.monotonic() + limit_s)
                    except TimeoutError:
                        raise self._too_late(limit_s) from None
                    if part is None:
                        return
                    yield part
        finally:
            self.admission.leave(size)
            if usage is not None:
                usage.add(request.progress)

    async def _answer(self, request: Request, size: int, limit_s: float, deadline: float) -> Any:
        try:
            if self._batcher is not None and size <= MOST_BATCHED_CHARACTERS:
                return await self._batcher.run(request, deadline=deadline)
            return await self.threads.run(request.answer, deadline=deadline)
        except TimeoutError:
            raise self._too_late(limit_s) from None

    def _limit_s(self, time_remaining_s: float | None) -> float:
        return self._timeout_s if time_remaining_s is None else min(self._timeout_s, time_remaining_s)

    def _too_late(self, limit_s: float) -> TimeLimitExceeded:
        if limit_s < self._timeout_s:
            return CallerGaveUp("The call was not answered before the caller's deadline.")
        return TimeLimitExceeded(f"The call was not answered within the server's time limit of {self._timeout_s:g} s.")
