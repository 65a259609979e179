"""One record in a request body, read and answered as in rest-model-service.

Source: FastAPI's `get_request_handler`, which reads the body, and `rest_model_service.exception_handlers` 0.6.0, which
writes the messages.
"""

import email.message
import json
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlflow_grpc.engine.progress import RequestProgress
from mlflow_grpc.engine.requests import Request, RequestObserver
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import InvalidPayload
from mlflow_grpc.hosting.mlmodel.rest_faults import RestRecordRefused
from mlflow_grpc.payload.codec import ModelInput

if TYPE_CHECKING:
    from mlflow_grpc.hosting.mlmodel.rest_records import RestRecords

VALIDATION_ERROR = "ValidationError"
"""Type of the error for an invalid record."""


class BodyRefused(InvalidPayload):
    """The body is not a valid record."""

    def __init__(self, content: dict[str, Any]) -> None:
        """Creates the error.

        Args:
            content: Body of the response. It may repeat the payload, so it is not logged.

        """
        super().__init__("The body is not a record that fits the model's input schema.")
        self.content = content

    @classmethod
    def of_faults(cls, faults: list[tuple[tuple[int | str, ...], str, str]]) -> "BodyRefused":
        """Returns the error for faults, each with its path in the record, its type and its message."""
        texts = [
            f"Field '{', '.join(map(str, ('body', *loc)))}' has error '{error_type}', {message}."
            for loc, error_type, message in faults
        ]
        return cls({"type": VALIDATION_ERROR, "messages": texts})


@dataclass(slots=True)
class RestRecordRequest(Request[bytes]):
    """A body that holds one record. Its answer is the model's output as JSON."""

    body: bytes
    content_type: str | None
    observer: RequestObserver
    progress: RequestProgress = field(default_factory=RequestProgress, init=False)

    @property
    def size(self) -> int:
        """Size in bytes."""
        return len(self.body)

    @property
    def cache_key(self) -> Hashable:
        """Body and content type, apart from those of other routes."""
        return RestRecordRequest, self.body, self.content_type

    def decode_rows(self, model: ServableModel) -> None:
        """Returns None, because MLModel packages have no fast path."""
        return

    def encode_rows(self, model: ServableModel, predictions: object) -> bytes:
        """Returns the only output as JSON."""
        if not isinstance(predictions, list):
            raise TypeError(f"predictions of the type {type(predictions).__name__}")
        return _records(model).dump(predictions[0])

    def decode(self, model: ServableModel) -> ModelInput:
        """Validates the record.

        Raises:
            BodyRefused: The body is not a valid record.
            InvalidPayload: The record has fields that the model does not have, and the server refuses these.

        """
        if not self.body:
            raise BodyRefused.of_faults([((), "missing", "Field required")])
        value = _json_value(self.body) if _is_json(self.content_type) else self.body
        try:
            record = _records(model).parse(value)
        except RestRecordRefused as refused:
            raise BodyRefused.of_faults(
                [(fault.loc, fault.error_type, fault.message) for fault in refused.faults]
            ) from None
        return ModelInput([record], ignored=_records(model).ignored_fields([value]) if isinstance(value, dict) else ())

    def encode(self, model: ServableModel, predictions: object, decoded: ModelInput) -> bytes:
        """Returns the only output as JSON."""
        return self.encode_rows(model, predictions)

    def explain(self, model: ServableModel, cause: BaseException | None) -> InvalidPayload:
        """Returns an error without a reason, because `decode` raises one with the reason."""
        return InvalidPayload("The record does not fit the model.")


def _is_json(content_type: str | None) -> bool:
    """Returns True for the content types that FastAPI parses as JSON: application/json and application/...+json."""
    if not content_type:
        return False
    message = email.message.Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))


def _json_value(body: bytes) -> Any:
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        raise BodyRefused.of_faults([((error.pos,), "json_invalid", "JSON decode error")]) from None
    except (ValueError, RecursionError):
        raise BodyRefused({"detail": "There was an error parsing the body"}) from None


def _records(model: ServableModel) -> "RestRecords":
    if model.rest_records is None:
        raise TypeError(f"{model.model.name} has no MLModel interface")
    return model.rest_records
