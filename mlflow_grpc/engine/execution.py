"""Runs a call from text to text: decode, predict and encode in one visit to a thread.

Rule of this module: every way in which a call can end is a `ServingError` or an answer. The event loop
only waits; a call that takes long, or for ever, holds up no other.
"""

import time

from mlflow_grpc.engine.admission import Admission
from mlflow_grpc.engine.threads import ModelThreads
from mlflow_grpc.errors import NotReady, TimeLimitExceeded
from mlflow_grpc.hosting.model import HostedModel, InputRefused
from mlflow_grpc.payload.codec import Codec


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

    def host(self, model: HostedModel, codec: Codec) -> None:
        """Gives the engine its model."""
        self._hosted = (model, codec)

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
            try:
                return await self._threads.run(
                    lambda: _answer(model, codec, text, content_type), deadline=time.monotonic() + limit_s
                )
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
