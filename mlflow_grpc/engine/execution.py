"""Runs a call from text to text: decode, predict and encode in one visit to a thread.

Rule of this module: every way in which a call can end is a `ServingError` or an answer. The event loop
only waits; a call that takes long, or for ever, holds up no other.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_grpc.engine.admission import Admission
from mlflow_grpc.engine.batching import Batcher
from mlflow_grpc.engine.threads import ModelThreads
from mlflow_grpc.errors import NotReady, TimeLimitExceeded
from mlflow_grpc.hosting.model import HostedModel, InputRefused
from mlflow_grpc.payload.codec import Codec

if TYPE_CHECKING:  # They import MLflow, which takes seconds and is not needed to answer health checks.
    from mlflow_grpc.engine.rows import RowRunner
    from mlflow_grpc.payload.plain import PlainDecoder

MOST_PLAIN_CHARACTERS = 16_384
"""The longest payload that is decoded in the event loop; it takes well under a millisecond."""


@dataclass(frozen=True)
class Plain:
    """The fast way of a model: how its plain rows are decoded, run, and put together."""

    decoder: "PlainDecoder"
    runner: "RowRunner"
    most_rows: int
    """The most rows in a batch; 1 if calls are not to be put together."""
    longest_wait_s: float


class Engine:
    """Runs the calls to one model, once it is given one."""

    def __init__(self, threads: ModelThreads, admission: Admission, *, timeout_s: float) -> None:
        """Args:
        threads: Where models run.
        admission: Which calls may come in.
        timeout_s: The time limit of a call in seconds, waiting for a thread included.
        """
        self._threads = threads
        self._admission = admission
        self._timeout_s = timeout_s
        self._hosted: tuple[HostedModel, Codec] | None = None
        self._plain: tuple[PlainDecoder, Batcher] | None = None

    def host(self, model: HostedModel, codec: Codec, plain: Plain | None = None) -> None:
        """Gives the engine its model.

        Args:
            model: The model.
            codec: The formats of its payloads.
            plain: How plain rows are run, if there is a fast way for this model.

        """
        self._hosted = (model, codec)
        if plain is not None:
            batcher = Batcher(
                self._threads, plain.runner, most_rows=plain.most_rows, longest_wait_s=plain.longest_wait_s
            )
            self._plain = (plain.decoder, batcher)

    @property
    def model_name(self) -> str:
        """The name of the model for logs; empty while none is loaded."""
        return self._hosted[0].name if self._hosted else ""

    def describe(self) -> str:
        """The model's name, and in brackets what kind it is."""
        return f"{self._hosted[0].name} ({self._hosted[0].description})" if self._hosted else "(none)"

    async def predict(self, text: str, *, content_type: str | None, time_remaining_s: float | None) -> str:
        """Answers one payload.

        Args:
            text: The payload.
            content_type: The value of the call's `mlflow-content-type`, None if it has none.
            time_remaining_s: How long the caller will wait, in seconds; None if for ever.

        Raises:
            ServingError: The call failed; which one says how, and who is at fault.

        """
        with self._admission:
            if self._hosted is None:
                raise NotReady("The model is still being loaded.")
            model, codec = self._hosted
            limit_s = self._timeout_s if time_remaining_s is None else min(self._timeout_s, time_remaining_s)
            deadline = time.monotonic() + limit_s

            def alone() -> str:
                return _answer(model, codec, text, content_type)

            try:
                if self._plain is not None and content_type is None and len(text) <= MOST_PLAIN_CHARACTERS:
                    decoder, batcher = self._plain
                    if rows := decoder.decode(text):
                        return await batcher.run(rows, rows.count, alone, deadline=deadline)
                return await self._threads.run(alone, deadline=deadline)
            except TimeoutError:
                raise TimeLimitExceeded(
                    f"The call was not answered within the server's time limit of {self._timeout_s:g} s."
                    if limit_s == self._timeout_s
                    else "The call was not answered before the caller's deadline."
                ) from None


def _answer(model: HostedModel, codec: Codec, text: str, content_type: str | None) -> str:
    try:
        request = codec.decode(text, content_type)
        predictions = model.predict(request.data, request.params)
    except InputRefused as refusal:
        raise codec.explain(text, content_type, refusal.__cause__) from None
    return codec.encode(predictions, request)
