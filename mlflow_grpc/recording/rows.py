"""Rows of the files, made of requests that have ended.

Rule of this module: it runs in the recorder's thread. It reads payloads again, because models may change their input.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mlflow_grpc.engine.requests import TextRequest
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.recording.columns import CallRow
from mlflow_grpc.recording.sampling import SampledRequest

logger = get_logger(__name__)

MS = 1000.0


@dataclass(frozen=True, slots=True)
class EndedRequest:
    """A request at the moment when it ended."""

    sampled: SampledRequest[Any]
    model: ServableModel
    duration_s: float

    @classmethod
    def of(cls, sampled: SampledRequest[Any], model: ServableModel) -> "EndedRequest":
        """Takes the time of a request that ends now."""
        return cls(sampled, model, time.monotonic() - sampled.progress.created_at)

    @property
    def size(self) -> int:
        """Size of what is kept, in bytes."""
        return self.sampled.size + self.sampled.answer_size


def row_of(ended: EndedRequest) -> CallRow:
    """Returns the row of a request."""
    sampled, model, progress = ended.sampled, ended.model, ended.sampled.progress
    text, content_type = _input(sampled, model)
    return CallRow(
        request_id=sampled.call.request_id,
        started_at=datetime.fromtimestamp(sampled.started_at, UTC),
        method=sampled.call.method,
        model=sampled.model_name,
        version=sampled.version,
        status="OK" if sampled.error is None else sampled.error.status.value,
        error=None if sampled.error is None else sampled.error.logged,
        rows=progress.rows,
        waited_ms=MS * progress.waited_s,
        model_ms=MS * progress.predict_s,
        duration_ms=MS * ended.duration_s,
        content_type=content_type,
        input=text,
        output=_output(sampled, model) if sampled.error is None else None,
    )


def _input(sampled: SampledRequest[Any], model: ServableModel) -> tuple[str | None, str]:
    """Returns the input as text, and its content type."""
    from mlflow_grpc.payload import recorded_text

    request = sampled.request
    if isinstance(request, TextRequest):
        default = model.codec.media_type
        as_text = recorded_text.payload_as_text(request.payload, request.content_type, default)
        if as_text is not None:
            return as_text
    try:
        return recorded_text.input_as_text(request.decode(model)), recorded_text.JSON
    except Exception:
        if sampled.error is None:  # Otherwise, it was refused for the same reason.
            logger.exception(
                "a recorded call of %s has no input, because it cannot be written as text", model.model.name
            )
        return None, recorded_text.JSON


def _output(sampled: SampledRequest[Any], model: ServableModel) -> str | None:
    if sampled.text is not None:
        return sampled.text
    try:
        return model.codec.encode(sampled.predictions, sampled.decoded)
    except Exception:
        logger.exception("a recorded call of %s has no output, because it cannot be written as text", model.model.name)
        return None
