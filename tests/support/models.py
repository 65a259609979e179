"""Models and a codec of a few lines each, for tests of the code around a model."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

from mlflow_grpc.errors import InvalidPayload, ModelFailed
from mlflow_grpc.hosting.model import ModelInfo
from mlflow_grpc.payload.codec import ModelInput, RawPayload


class PlainCodec:
    """Codec whose input is the text, and whose answer is str() of the predictions."""

    media_type = "text/plain; charset=utf-8"

    def asks_for_stream(self, payload: RawPayload) -> bool:
        return False

    def decode(self, payload: RawPayload, content_type: str | None) -> ModelInput:
        return ModelInput(payload)

    def encode(self, predictions: Any, request: ModelInput) -> str:
        return str(predictions)

    def explain(self, payload: RawPayload, content_type: str | None, cause: BaseException | None) -> InvalidPayload:
        return InvalidPayload("refused")

    def with_clues(self, failed: ModelFailed, data: Any) -> ModelFailed:
        return failed


def judge(data: Any) -> Any:
    """Refuses `bad`, fails on `broken`, and repeats everything else."""
    if data == "bad":
        raise InvalidPayload("It is bad.")
    if data == "broken":
        raise ModelFailed("It is broken.")
    return data


class _WholeModel:
    """A model without `predict_stream`."""

    streams = False

    def predict_stream(self, data: Any, params: dict[str, Any] | None) -> Iterator[Any]:
        raise AssertionError("it does not stream")


class FunctionModel(_WholeModel):
    """A model that is a single function."""

    name = "function"
    version = ""
    description = "test"
    info = ModelInfo()

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def predict(self, data: Any, params: dict[str, Any] | None) -> Any:
        return self._function(data)


class GatedModel(_WholeModel):
    """A model that reports the arrival of a call and holds it until the test releases it.

    Calls whose text does not start with "hold" pass at once.
    """

    name = "gated"
    version = ""
    description = "test"
    info = ModelInfo()

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.calls: list[str] = []
        self._open = threading.Event()

    def predict(self, data: Any, params: dict[str, Any] | None) -> Any:
        self.calls.append(data)
        if str(data).startswith("hold"):
            self.entered.release()
            assert self._open.wait(60)
        return f"<{data}>"

    def wait_until_entered(self, calls: int = 1) -> None:
        """Waits until that many further calls are held."""
        for _ in range(calls):
            assert self.entered.acquire(timeout=30)

    def let_go(self) -> None:
        """Releases all held and later calls."""
        self._open.set()


class PartsModel:
    """A model that answers in chunks, one per word of a text. "hold" waits until the test releases it, "raise" raises."""

    name = "parts"
    version = ""
    description = "test"
    info = ModelInfo()
    streams = True

    def __init__(self) -> None:
        self.made: list[str] = []
        self.held = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.closed = threading.Event()
        self.closed_in = ""

    def predict(self, data: Any, params: dict[str, Any] | None) -> Any:
        return data

    def predict_stream(self, data: Any, params: dict[str, Any] | None) -> Iterator[Any]:
        try:
            for word in str(data).split():
                if word == "hold":
                    self.held.release()
                    assert self.gate.acquire(timeout=60)
                if word == "raise":
                    raise ModelFailed("The model raised an exception.", error_class="ValueError")
                self.made.append(word)
                yield word
        finally:
            self.closed_in = threading.current_thread().name
            self.closed.set()
