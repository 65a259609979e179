"""A request that keeps the predictions from which its answer is made, in whatever form the answer is.

Rule of this module: the answer stays the same, as do the times and the caller of the request.
"""

from typing import TYPE_CHECKING

from mlflow_grpc.engine.requests import AnswerT, Request
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import InvalidPayload
from mlflow_grpc.payload.codec import ModelInput

if TYPE_CHECKING:
    from mlflow_grpc.payload.fast_json.fast_decoder import RowBlock


class CapturedRequest(Request[AnswerT]):
    """A request in place of another one, which does its work."""

    __slots__ = ("_request", "predictions")

    def __init__(self, request: Request[AnswerT]) -> None:
        """Keeps no predictions yet.

        Args:
            request: The request that the caller sent.

        """
        self._request = request
        self.observer, self.progress = request.observer, request.progress
        self.predictions: object = None
        """What the model returned for the rows of the request; None until the answer is made."""

    @property
    def size(self) -> int:
        """Size of the payload, in bytes or characters."""
        return self._request.size

    def decode_rows(self, model: ServableModel) -> "RowBlock | None":
        """Decodes the payload on the fast path; None if that does not apply."""
        return self._request.decode_rows(model)

    def encode_rows(self, model: ServableModel, predictions: object) -> AnswerT:
        """Makes the answer from the predictions, and keeps these."""
        self.predictions = predictions
        return self._request.encode_rows(model, predictions)

    def decode(self, model: ServableModel) -> ModelInput:
        """Decodes the payload as MLflow does; raises the errors of `Request.decode`."""
        return self._request.decode(model)

    def encode(self, model: ServableModel, predictions: object, decoded: ModelInput) -> AnswerT:
        """Makes the answer from the predictions, and keeps these."""
        self.predictions = predictions
        return self._request.encode(model, predictions, decoded)

    def explain(self, model: ServableModel, cause: BaseException | None) -> InvalidPayload:
        """Makes the error for a refused payload."""
        return self._request.explain(model, cause)
