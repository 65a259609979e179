"""Runs a call from text to text: decode, predict and encode in one visit to a thread.

Rule of this module: every way in which a call can end is a `ServingError` or an answer. The event loop
only waits; a call that takes long, or for ever, holds up no other.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mlflow_grpc.engine.admission import Admission
from mlflow_grpc.engine.batching import Batcher
from mlflow_grpc.engine.threads import ModelThreads
from mlflow_grpc.errors import NotReady, TimeLimitExceeded
from mlflow_grpc.hosting.model import HostedModel, InputRefused
from mlflow_grpc.payload.codec import Codec, ModelInput

if TYPE_CHECKING:  # They import MLflow, which takes seconds and is not needed to answer health checks.
    from mlflow_grpc.engine.rows import RowRunner
    from mlflow_grpc.payload.plain import PlainDecoder, PlainRows

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


@dataclass(frozen=True, slots=True)
class Request:
    """One payload and its content type."""

    text: str
    content_type: str | None


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
        self._batcher: Batcher[Request] | None = None

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
                _Together(self._hosted, plain.runner),
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
        self.admission.enter(len(text))
        try:
            return await self._predict(text, content_type, time_remaining_s)
        finally:
            self.admission.leave(len(text))

    async def _predict(self, text: str, content_type: str | None, time_remaining_s: float | None) -> str:
        hosted = self._hosted
        if hosted is None:
            raise NotReady("The model is still being loaded.")
        limit_s = self._timeout_s if time_remaining_s is None else min(self._timeout_s, time_remaining_s)
        deadline = time.monotonic() + limit_s
        try:
            request = Request(text, content_type)
            if self._batcher is not None and len(text) <= MOST_BATCHED_CHARACTERS:
                return await self._batcher.run(request, deadline=deadline)
            return await self.threads.run(partial(hosted.answer, request), deadline=deadline)
        except TimeoutError:
            raise TimeLimitExceeded(
                f"The call was not answered within the server's time limit of {self._timeout_s:g} s."
                if limit_s == self._timeout_s
                else "The call was not answered before the caller's deadline."
            ) from None


@dataclass(frozen=True, slots=True)
class _Hosted:
    """A model and the ways to run it; the methods run in a thread."""

    model: HostedModel
    codec: Codec
    plain: Plain | None

    def rows(self, request: Request) -> "PlainRows | None":
        """The rows of a payload, if it is a plain one and there is a fast way for those."""
        plain = self.plain
        if plain is None or request.content_type not in JSON_TYPES:
            return None
        return plain.decoder.decode(request.text)

    def answer(self, request: Request) -> str:
        """Answers a payload by itself, the fast way if there is one.

        Raises:
            ServingError: There is no answer.

        """
        rows = self.rows(request)
        if rows is None or self.plain is None:
            return self.answer_checked(request)
        if self.plain.runner is None:
            table = ModelInput(self.plain.decoder.table([rows]))
            return self.codec.encode(self.model.predict(table.data, None), table)
        try:
            return self.plain.runner.run([rows])[0]
        except BaseException:  # noqa: BLE001 - what it was shows again, in MLflow's words, when its checks are run
            return self.answer_checked(request)

    def answer_checked(self, request: Request) -> str:
        """Answers a payload by itself, with all of MLflow's checks.

        Raises:
            ServingError: There is no answer.

        """
        try:
            parsed = self.codec.decode(request.text, request.content_type)
            predictions = self.model.predict(parsed.data, parsed.params)
        except InputRefused as refusal:
            raise self.codec.explain(request.text, request.content_type, refusal.__cause__) from None
        return self.codec.encode(predictions, parsed)


@dataclass(frozen=True, slots=True)
class _Together:
    """How requests to a model are answered together."""

    hosted: _Hosted
    runner: "RowRunner"

    def rows(self, request: Request) -> "PlainRows | None":
        """The rows of a plain payload."""
        return self.hosted.rows(request)

    def answer_rows(self, members: "Sequence[PlainRows]") -> list[str]:
        """The answers for the rows of several payloads, past MLflow's checks."""
        return self.runner.run(members)

    def answer(self, request: Request) -> str:
        """Answers a payload by itself."""
        return self.hosted.answer(request)

    def answer_checked(self, request: Request) -> str:
        """Answers a payload by itself, with all of MLflow's checks."""
        return self.hosted.answer_checked(request)
