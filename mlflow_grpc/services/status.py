"""Conversion of errors to gRPC statuses.

Rule of this module: a status fits into one frame of trailers. Past 16 KB of metadata a client sees RESOURCE_EXHAUSTED
instead of the code (grpc#37852), and proxies allow less. The limit here is 3 KB for all trailers of an answer, and 4 KB
with `--show-exceptions`. Long text is cut, and the last violations are left out.
"""

from functools import lru_cache
from urllib.parse import quote

import grpc
from _mlflow_grpc_protocol.metadata import REQUEST_ID_KEY
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from mlflow_grpc import protos
from mlflow_grpc.errors import FRAME, Overloaded, ServingError, Status

DOMAIN = "mlflow.org"
"""Domain of ErrorInfo: reasons are MLflow's error codes."""

DETAILS_KEY: str = rpc_status.GRPC_DETAILS_METADATA_KEY  # type: ignore[attr-defined]  # not in its stubs
PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""Trailer that tells a gRPC client when to try again, or not to with -1 (gRFC A6)."""

MAX_MESSAGE_BYTES = 700  # As percent-encoded in the grpc-message trailer.
MAX_DETAILS_BYTES = 1300  # Before base64, which adds a third.

# Clients such as grpcurl use reflection to decode the details of a status.
for _module in (status_pb2, error_details_pb2):
    protos.adopt(_module.DESCRIPTOR)

Trailers = tuple[tuple[str, str | bytes], ...]

_ANY_ID = "\1" * 16
"""Placeholder for a request id that the server made; it occurs in no text."""


def of_error(error: ServingError, *, request_id: str, model: str) -> tuple[grpc.StatusCode, str, Trailers]:
    """Returns the status code, message and trailers of a failed call.

    The trailers carry a google.rpc.Status with ErrorInfo (reason, request id, error class, model). It has a BadRequest
    if fields are at fault, and a DebugInfo with `--show-exceptions`. RESOURCE_EXHAUSTED also carries the pushback.
    """
    if error.is_frequent and len(request_id) == len(_ANY_ID):
        message, details = _refusal(error.message, error.status, error.reason, error.error_class, model)
        details = details.replace(_ANY_ID.encode(), request_id.encode())
    else:
        message, details = _message_and_details(error, request_id, model)
    trailers: Trailers = ((REQUEST_ID_KEY, request_id), (DETAILS_KEY, details))
    if error.status is Status.RESOURCE_EXHAUSTED:
        pause_s = error.retry_after_s if isinstance(error, Overloaded) else None
        trailers += ((PUSHBACK_KEY, "-1" if pause_s is None else str(round(pause_s * 1000))),)
    return grpc.StatusCode[error.status.value], message, trailers


@lru_cache(maxsize=256)
def _refusal(message: str, status: Status, reason: str, error_class: str | None, model: str) -> tuple[str, bytes]:
    """Caches what refusals have in common, because there may be thousands a second."""
    error = ServingError(message, status=status, reason=reason, error_class=error_class)
    return _message_and_details(error, _ANY_ID, model)


def _message_and_details(error: ServingError, request_id: str, model: str) -> tuple[str, bytes]:
    exception, *frames = (error.shown or "").split(FRAME)
    message = _cut(f"{error.message} {exception}".rstrip(), MAX_MESSAGE_BYTES)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata={"request_id": request_id})
    if error.error_class:
        info.metadata["error_class"] = error.error_class[:64]
    if model:
        info.metadata["model"] = model
    status = status_pb2.Status(code=code_pb2.Code.Value(error.status.value), message=message, details=[_packed(info)])
    bad_request = error_details_pb2.BadRequest()
    for violation in error.violations:
        bad_request.field_violations.add(field=_cut(violation.field, 256), description=_cut(violation.description, 256))
        if status.ByteSize() + bad_request.ByteSize() > MAX_DETAILS_BYTES:
            del bad_request.field_violations[-1]
            break
    if bad_request.field_violations:
        status.details.append(_packed(bad_request))
    if exception:
        debug = error_details_pb2.DebugInfo(stack_entries=frames, detail=_cut(exception, MAX_MESSAGE_BYTES))
        status.details.append(_packed(debug))
    return message, status.SerializeToString()


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _cut(text: str, max_bytes: int) -> str:
    """Cuts text to a size on the wire, where a character outside of ASCII takes up to 12 bytes.

    Lone surrogates, which JSON can hold and UTF-8 cannot, become question marks.
    """
    text = text.encode(errors="replace").decode()
    if len(quote(text, safe="")) <= max_bytes:
        return text
    size = 0
    for position, character in enumerate(text):
        size += len(quote(character, safe=" "))
        if size > max_bytes - 9:
            return f"{text[:position]}…"
    return text
