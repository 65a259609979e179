"""One inference request in an HTTP body, whose answer is a body in the same form.

Rule of this module: it holds what the caller sent until the engine decodes it. `mlflow_grpc.payload.tensors` converts.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlflow_grpc.calls.inference_models import REQUEST
from mlflow_grpc.engine.progress import RequestProgress
from mlflow_grpc.engine.requests import Request, RequestObserver
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import InvalidPayload
from mlflow_grpc.payload.codec import ModelInput
from mlflow_grpc.payload.tensors.json_request import read_request
from mlflow_grpc.payload.tensors.json_response import InferenceBody, write_response

if TYPE_CHECKING:
    from mlflow_grpc.payload.fast_json.fast_decoder import RowBlock
    from mlflow_grpc.payload.tensors.codec import TensorCodec


@dataclass(slots=True)
class InferenceRequest(Request[InferenceBody]):
    """A body with tensors in JSON, or in binary form after the JSON."""

    codec: "TensorCodec"
    body: bytes
    json_length: str | None
    """The header that says where the JSON ends; None if all of the body is JSON."""
    observer: RequestObserver
    progress: RequestProgress = field(default_factory=RequestProgress, init=False)
    _size: int = field(init=False)
    _message: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Measures the body, which is freed once it is read."""
        self._size = len(self.body)

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self._size

    @property
    def cache_key(self) -> Hashable | None:
        """The codec, the body and where its JSON ends; None once the body has been read."""
        return (self.codec, self.body, self.json_length) if self._message is None else None

    def decode_rows(self, model: ServableModel) -> "RowBlock | None":
        """Reads tensors of scalars, or one tensor."""
        if model.fast_path is None:
            return None
        return self.codec.fast_path_rows(self._read(), model.fast_path.decoder)

    def encode_rows(self, model: ServableModel, predictions: object) -> InferenceBody:
        """Makes the body with a tensor for each output."""
        message = self._read()
        return write_response(self.codec.encode(predictions, message), message)

    def decode(self, model: ServableModel) -> ModelInput:
        """Reads the tensors."""
        return self.codec.decode(self._read())

    def encode(self, model: ServableModel, predictions: object, decoded: ModelInput) -> InferenceBody:
        """Makes the body with a tensor for each output."""
        return self.encode_rows(model, predictions)

    def explain(self, model: ServableModel, cause: BaseException | None) -> InvalidPayload:
        """Makes the error for refused tensors."""
        return self.codec.explain(self._read(), cause)

    def _read(self) -> Any:
        """Returns the body as a message, which is read once."""
        if self._message is None:
            self._message = read_request(self.body, self.json_length, REQUEST)
            self.body = b""  # The message has all of it.
        return self._message
