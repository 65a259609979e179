"""Runs a call from text to text: decode, predict and encode in one visit to a thread.

Rule of this module: every way in which a call can end is a `ServingError` or an answer. The event loop
only waits; a call that takes long, or for ever, holds up no other.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow_grpc.engine.admission import Admission
from mlflow_grpc.engine.batching import Batcher, Request
from mlflow_grpc.engine.threads import ModelThreads
from mlflow_grpc.errors import NotReady, TimeLimitExceeded
from mlflow_grpc.hosting.model import HostedModel, InputRefused
from mlflow_grpc.payload.codec import PLAIN_INPUT, Codec

if TYPE_CHECKING:  # They import MLflow, which takes seconds and is not needed to answer health checks.
    from mlflow_grpc.engine.rows import RowRunner
    from mlflow_grpc.payload.plain import PlainDecoder, PlainRows
    from mlflow_grpc.payload.typed import TypedCodec

MOST_BATCHED_CHARACTERS = 16_384
"""The longest payload that is put together with others: decoding it takes well under a millisecond, for which they
wait.
"""

JSON_TYPES = (None, "application/json")
"""The values of `mlflow-content-type` that a plain payload comes with."""


@dataclass(frozen=True)
class Plain:
    """The fast way of a model: how its plain rows are decoded, and how they are run and put together."""

    decoder: "PlainDecoder"
    runner: "RowRunner | None" = None
    """Runs rows past MLflow's checks; None if only the decoder is to be used."""
    most_rows: int = 1
    """The most rows in a batch; 1 if calls are not to be put together."""
    longest_wait_s: float = 0.0


class Engine:
    """Runs the calls to one model, once it is given one."""

    def __init__(self, threads: ModelThreads, admission: Admission, *, timeout_s: float) -> None:
        """Args:
        threads: Where models run.
        admission: Which calls may come in.
        timeout_s: The time limit of a call in seconds, waiting for a thread included.
        """
        self.threads = threads
        self.admission = admission
        self._timeout_s = timeout_s
        self._hosted: _Hosted | None = None
        self._batcher: Batcher | None = None

    def host(self, model: HostedModel, codec: Codec, plain: Plain | None = None) -> None:
        """Gives the engine its model.

        Args:
            model: The model.
            codec: The formats of its payloads.
            plain: How plain rows are run, if there is a fast way for this model.

        """
        self._hosted = _Hosted(model, codec, plain)
        if plain is not None and plain.runner is not None:
            self._batcher = Batcher(
                self.threads,
                plain.runner,
                most_rows=plain.most_rows,
                longest_wait_s=plain.longest_wait_s,
                crowd=self.admission,
            )

    async def predict(self, text: str, *, content_type: str | None, time_remaining_s: float | None) -> str:
        """Answers one payload.

        Args:
            text: The payload.
            content_type: The value of the call's `mlflow-content-type`, None if it has none.
            time_remaining_s: How long the caller will wait, in seconds; None if for ever.

        Raises:
            ServingError: The call failed; which one says how, and who is at fault.

        """
        size = len(text)
        self.admission.enter(size)
        try:
            request = _TextRequest(self._loaded(), text, content_type)
            batched = size <= MOST_BATCHED_CHARACTERS
            answer: str = await self._answer(request, time_remaining_s, batched=batched)
            return answer
        finally:
            self.admission.leave(size)

    async def predict_record(self, message: Any, typed: "TypedCodec", *, time_remaining_s: float | None) -> Any:
        """Answers one record that came as a message of the model's own type.

        Args:
            message: The message.
            typed: Reads it, and makes the answer's.
            time_remaining_s: How long the caller will wait, in seconds; None if for ever.

        Raises:
            ServingError: The call failed; which one says how, and who is at fault.

        """
        size = message.ByteSize()
        self.admission.enter(size)
        try:
            request = _TypedRequest(self._loaded(), typed, message)
            return await self._answer(request, time_remaining_s, batched=size <= MOST_BATCHED_CHARACTERS)
        finally:
            self.admission.leave(size)

    def _loaded(self) -> "_Hosted":
        if self._hosted is None:
            raise NotReady("The model is still being loaded.")
        return self._hosted

    async def _answer(self, request: Request, time_remaining_s: float | None, *, batched: bool) -> Any:
        limit_s = self._timeout_s if time_remaining_s is None else min(self._timeout_s, time_remaining_s)
        deadline = time.monotonic() + limit_s
        try:
            if self._batcher is not None and batched:
                return await self._batcher.run(request, deadline=deadline)
            return await self.threads.run(request.answer, deadline=deadline)
        except TimeoutError:
            raise TimeLimitExceeded(
                f"The call was not answered within the server's time limit of {self._timeout_s:g} s."
                if limit_s == self._timeout_s
                else "The call was not answered before the caller's deadline."
            ) from None


@dataclass(frozen=True, slots=True)
class _Hosted:
    """A model, its codec and its fast way."""

    model: HostedModel
    codec: Codec
    plain: Plain | None


@dataclass(frozen=True, slots=True)
class _TextRequest:
    """A payload of text; the methods run in a thread."""

    hosted: _Hosted
    text: str
    content_type: str | None

    def rows(self) -> "PlainRows | None":
        """The rows of the payload, if it is a plain one and there is a fast way for those."""
        plain = self.hosted.plain
        if plain is None or self.content_type not in JSON_TYPES:
            return None
        return plain.decoder.decode(self.text)

    def encode(self, predictions: Any) -> str:
        """The answer for plain rows."""
        return self.hosted.codec.encode(predictions, PLAIN_INPUT)

    def answer(self) -> str:
        """Answers by itself, the fast way if there is one.

        Raises:
            ServingError: There is no answer.

        """
        rows, plain = self.rows(), self.hosted.plain
        if rows is None or plain is None:
            return self.answer_checked()
        if plain.runner is None:
            return self.encode(self.hosted.model.predict(plain.decoder.table([rows]), None))
        try:
            return self.encode(plain.runner.predict([rows])[0])
        except BaseException:  # noqa: BLE001 - what it was shows again, in MLflow's words, when its checks are run
            return self.answer_checked()

    def answer_checked(self) -> str:
        """Answers by itself, with all of MLflow's checks.

        Raises:
            ServingError: There is no answer.

        """
        codec = self.hosted.codec
        try:
            parsed = codec.decode(self.text, self.content_type)
            predictions = self.hosted.model.predict(parsed.data, parsed.params)
        except InputRefused as refusal:
            raise codec.explain(self.text, self.content_type, refusal.__cause__) from None
        return codec.encode(predictions, parsed)


@dataclass(frozen=True, slots=True)
class _TypedRequest:
    """A record in a message; the methods run in a thread."""

    hosted: _Hosted
    typed: "TypedCodec"
    message: Any

    def rows(self) -> "PlainRows | None":
        """The record as a plain row, if it is one and there is a fast way for those."""
        plain = self.hosted.plain
        if plain is None or plain.runner is None:
            return None
        values = self.typed.plain_values(self.message)
        return plain.decoder.row(values) if values is not None else None

    def encode(self, predictions: Any) -> Any:
        """The answer for a plain row."""
        return self.typed.encode(predictions)

    def answer(self) -> Any:
        """Answers by itself, the fast way if there is one.

        Raises:
            ServingError: There is no answer.

        """
        rows, plain = self.rows(), self.hosted.plain
        if rows is None or plain is None or plain.runner is None:
            return self.answer_checked()
        try:
            return self.encode(plain.runner.predict([rows])[0])
        except BaseException:  # noqa: BLE001 - what it was shows again when the model's checks are run
            return self.answer_checked()

    def answer_checked(self) -> Any:
        """Answers by itself, with all of the model's checks.

        Raises:
            ServingError: There is no answer.

        """
        try:
            parsed = self.typed.decode(self.message)
            predictions = self.hosted.model.predict(parsed.data, parsed.params)
        except InputRefused as refusal:
            raise self.typed.explain(self.message, refusal.__cause__) from None
        return self.typed.encode(predictions)
