"""Engines that hand a share of their requests to the recorder.

Rule of this module: a request that is not selected takes the way of an engine without recording. For one that is, the
event loop and the model's thread keep references and copy predictions; everything else is the work of the recorder.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from mlflow_grpc.calls.call import Call
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.requests import AnswerT, Request
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import InvalidPayload, ServingError, Status
from mlflow_grpc.payload.codec import PLAIN_INPUT, ModelInput

if TYPE_CHECKING:
    from mlflow_grpc.payload.fast_json.fast_decoder import RowBlock

NOT_OF_THE_MODEL = frozenset(
    (Status.CANCELLED, Status.DEADLINE_EXCEEDED, Status.RESOURCE_EXHAUSTED, Status.UNAVAILABLE)
)
"""Statuses of requests that are not recorded, because they depend on the load and not on the input."""


class Sink(Protocol):
    """Takes requests that are recorded."""

    def put(self, sampled: "SampledRequest[Any]", model: ServableModel) -> None:
        """Takes a request that has ended, and the model that it was for."""
        ...


class SampledRequest(Request[AnswerT]):
    """A request that keeps what is recorded of it; the model answers it, and no cache does."""

    __slots__ = (
        "answer_size",
        "call",
        "decoded",
        "error",
        "model_name",
        "predictions",
        "request",
        "started_at",
        "text",
        "version",
    )

    def __init__(self, request: Request[AnswerT], call: Call) -> None:
        """Takes the request that does the work, and its call."""
        self.request, self.call = request, call
        self.observer, self.progress = request.observer, request.progress
        self.model_name = call.model  # The next message of a stream may be for another model.
        self.version = next((version for _, version in call.version_trailers), "")
        self.started_at = time.time()
        """When the request arrived, in seconds since 1970."""
        self.text: str | None = None
        """The answer, if it is text."""
        self.predictions: Any = None
        """A copy of the predictions, if the answer is no text."""
        self.decoded = PLAIN_INPUT
        """The form of the answer."""
        self.answer_size = 0
        """Size of what is kept of the answer, in bytes, as far as it is known."""
        self.error: ServingError | None = None
        """The error that ended the request; None if it was answered."""

    @property
    def size(self) -> int:
        """Size of the payload, in bytes or characters."""
        return self.request.size

    def decode_rows(self, model: ServableModel) -> "RowBlock | None":
        """Decodes the payload on the fast path."""
        return self.request.decode_rows(model)

    def encode_rows(self, model: ServableModel, predictions: object) -> AnswerT:
        """Makes the answer, and keeps it."""
        answer = self.request.encode_rows(model, predictions)
        self._keep(answer, predictions, PLAIN_INPUT)
        return answer

    def decode(self, model: ServableModel) -> ModelInput:
        """Decodes the payload as MLflow does."""
        return self.request.decode(model)

    def encode(self, model: ServableModel, predictions: object, decoded: ModelInput) -> AnswerT:
        """Makes the answer, and keeps it."""
        answer = self.request.encode(model, predictions, decoded)
        self._keep(answer, predictions, ModelInput(None, bare_answer=decoded.bare_answer))
        return answer

    def explain(self, model: ServableModel, cause: BaseException | None) -> InvalidPayload:
        """Makes the error for a refused payload."""
        return self.request.explain(model, cause)

    def _keep(self, answer: object, predictions: Any, decoded: ModelInput) -> None:
        if isinstance(answer, str):
            self.text, self.answer_size = answer, len(answer)
            return
        # Copied, because a view would keep the predictions of a batch in memory, and a model may use its array again.
        copy: Callable[[], Any] | None = getattr(predictions, "copy", None)
        self.predictions = copy() if callable(copy) else predictions
        self.decoded = decoded
        nbytes = getattr(predictions, "nbytes", None)
        self.answer_size = nbytes if isinstance(nbytes, int) else self.size


class RecordingEngine(Engine):
    """An engine that records a share of its requests; those of streams of chunks are not recorded."""

    recorder: Sink
    """Gets the requests once they have ended."""
    share: float
    """From 0 to 1."""

    async def predict(self, request: Request[AnswerT], deadline: float | None) -> AnswerT:
        """Answers one request; see `Engine.predict`."""
        sampled = _selected(request, self.share)
        if sampled is None:
            return await super().predict(request, deadline)
        try:
            answer = await super().predict(sampled, deadline)
        except ServingError as error:
            self._record(sampled, error)
            raise
        self._record(sampled, None)
        return answer

    async def submit(self, request: Request[AnswerT], deadline: float | None) -> "asyncio.Future[AnswerT]":
        """Admits one request of a stream; see `Engine.submit`."""
        sampled = _selected(request, self.share)
        if sampled is None:
            return await super().submit(request, deadline)
        answering = await super().submit(sampled, deadline)

        def record(done: "asyncio.Future[AnswerT]") -> None:
            if not done.cancelled():
                self._record(sampled, done.exception())

        answering.add_done_callback(record)
        return answering

    def _record(self, sampled: SampledRequest[Any], error: BaseException | None) -> None:
        if self._model is None or (error is not None and not isinstance(error, ServingError)):
            return
        if error is not None and error.status in NOT_OF_THE_MODEL:
            return
        sampled.error = error
        self.recorder.put(sampled, self._model)


def recording_engine(recorder: Sink, share: float) -> type[RecordingEngine]:
    """Returns a class of engines that record a share of their requests.

    Args:
        recorder: Gets the requests once they have ended.
        share: From 0 to 1.

    """
    return type("RecordingEngine", (RecordingEngine,), {"recorder": recorder, "share": share})


def _selected(request: Request[AnswerT], share: float) -> SampledRequest[AnswerT] | None:
    """Returns the request as one that is recorded; None if it is not selected, or no caller sent it."""
    if random.random() >= share or not isinstance(request.observer, Call):  # noqa: S311 - nothing secret
        return None
    return SampledRequest(request, request.observer)
