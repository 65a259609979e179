"""How an error becomes a gRPC status: the one place.

Rule of this module: what it returns fits into one frame of trailers. Past 16 KB of metadata a client
sees RESOURCE_EXHAUSTED instead of the code (grpc#37852), and proxies allow less; the limit here is
3 KB for all trailers of an answer, kept by cutting text and leaving out the last violations; 4 KB with
`--show-exceptions`.
"""

from functools import lru_cache
from urllib.parse import quote

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from mlflow_grpc import protos
from mlflow_grpc.errors import FRAME, Overloaded, ServingError, Status

DOMAIN = "mlflow.org"
"""The domain of ErrorInfo: reasons are MLflow's error codes."""

DETAILS_KEY: str = rpc_status.GRPC_DETAILS_METADATA_KEY  # type: ignore[attr-defined]  # not in its stubs
REQUEST_ID_KEY = "x-request-id"
PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""Tells a gRPC client when to try again, or with -1 not to (gRFC A6)."""

MOST_MESSAGE_BYTES = 700  # As percent-encoded in the grpc-message trailer.
MOST_DETAILS_BYTES = 1300  # Before base64, which adds a third.

# By reflection clients learn what is in a status, and show it.
for _module in (status_pb2, error_details_pb2):
    protos.adopt(_module.DESCRIPTOR)

Trailers = tuple[tuple[str, str | bytes], ...]

_ANY_ID = "\1" * 16
"""Stands for a request id as the server makes them; no text has it in it."""


def of_error(error: ServingError, *, request_id: str, model: str) -> tuple[grpc.StatusCode, str, Trailers]:
    """The status code, message and trailers of a failed call.

    The trailers carry a google.rpc.Status with ErrorInfo (reason, request id, error class, model)
    and, where fields are at fault, BadRequest; with `--show-exceptions` DebugInfo. RESOURCE_EXHAUSTED says besides
    whether to try again.
    """
    if isinstance(error, Overloaded) and len(request_id) == len(_ANY_ID):
        message, details = _refusal(error.message, model)
        details = details.replace(_ANY_ID.encode(), request_id.encode())
    else:
        message, details = _message_and_details(error, request_id, model)
    trailers: Trailers = ((REQUEST_ID_KEY, request_id), (DETAILS_KEY, details))
    if error.status is Status.RESOURCE_EXHAUSTED:
        pause_s = error.retry_after_s if isinstance(error, Overloaded) else None
        trailers += ((PUSHBACK_KEY, "-1" if pause_s is None else str(round(pause_s * 1000))),)
    return grpc.StatusCode[error.status.value], message, trailers


@lru_cache(maxsize=256)
def _refusal(message: str, model: str) -> tuple[str, bytes]:
    """What refusals have in common, of which there are thousands a second under overload."""
    return _message_and_details(Overloaded(message, retry_after_s=0.0), _ANY_ID, model)


def _message_and_details(error: ServingError, request_id: str, model: str) -> tuple[str, bytes]:
    told, *frames = (error.shown or "").split(FRAME)
    message = _cut(f"{error.message} {told}".rstrip(), MOST_MESSAGE_BYTES)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata={"request_id": request_id})
    if error.error_class:
        info.metadata["error_class"] = error.error_class[:64]
    if model:
        info.metadata["model"] = model
    status = status_pb2.Status(code=code_pb2.Code.Value(error.status.value), message=message, details=[_packed(info)])
    bad_request = error_details_pb2.BadRequest()
    for violation in error.violations:
        bad_request.field_violations.add(field=_cut(violation.field, 256), description=_cut(violation.description, 256))
        if status.ByteSize() + bad_request.ByteSize() > MOST_DETAILS_BYTES:
            del bad_request.field_violations[-1]
            break
    if bad_request.field_violations:
        status.details.append(_packed(bad_request))
    if told:
        debug = error_details_pb2.DebugInfo(stack_entries=frames, detail=_cut(told, MOST_MESSAGE_BYTES))
        status.details.append(_packed(debug))
    return message, status.SerializeToString()


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _cut(text: str, most_bytes: int) -> str:
    """Shortens text to a size on the wire, where a character outside of ASCII takes up to 12 bytes.

    Lone surrogates, which JSON can spell and UTF-8 cannot, become question marks.
    """
    text = text.encode(errors="replace").decode()
    if len(quote(text, safe="")) <= most_bytes:
        return text
    size = 0
    for position, character in enumerate(text):
        size += len(quote(character, safe=" "))
        if size > most_bytes - 9:
            return f"{text[:position]}…"
    return text
