"""The exceptions of failed calls, with all details that the server sent."""

from dataclasses import dataclass
from typing import Any

import grpc
from _mlflow_grpc_protocol.metadata import REQUEST_ID_KEY
from google.protobuf.message import DecodeError

from mlflow_grpc_client import _wire


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A column, tensor or param at fault."""

    field: str
    """The name in the model's signature; `params.<name>` for a param."""
    description: str


class PredictError(Exception):
    """Error of a failed call. The subclass shows what to do about it, and the attributes have the details."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        reason: str = "",
        request_id: str = "",
        error_class: str = "",
        violations: tuple[FieldViolation, ...] = (),
        exception: str = "",
    ) -> None:
        """Takes the details of the failure.

        Args:
            code: The gRPC status code.
            message: The server's message.
            reason: MLflow's error code, such as INVALID_PARAMETER_VALUE; empty if the server sent none.
            request_id: The id of the call in the server's log; empty if the server sent none.
            error_class: MLflow's finer classification, such as SCHEMA_ENFORCEMENT_FAILED, or the type of the exception
                that the model raised, such as ValueError.
            violations: The fields at fault, as far as the server named them.
            exception: The exception that the model raised: type, text and the last lines of the traceback. Only a
                server with `--show-exceptions` sends it, and in a stream of records only within `message`.

        """
        # With all arguments the error can be pickled, such as on its way out of a process pool.
        super().__init__(code, message, reason, request_id, error_class, violations, exception)
        self.code = code
        self.message = message
        self.reason = reason
        self.request_id = request_id
        self.error_class = error_class
        self.violations = violations
        self.exception = exception

    def __str__(self) -> str:
        """The code, the message, and the details that the message does not contain."""
        text = f"{self.code.name}: {self.message}"
        violations = [f"{violation.field}: {violation.description}" for violation in self.violations]
        if unmentioned := [violation for violation in violations if violation not in self.message]:
            text += f" [{'; '.join(unmentioned)}]"
        details = [self.error_class] if self.error_class and self.error_class not in self.message else []
        details += [f"request id {self.request_id}"] if self.request_id else []
        return text + (f" ({', '.join(details)})" if details else "")


class InvalidInput(PredictError):
    """INVALID_ARGUMENT: the model does not accept the payload, its columns or its params. Change them."""


class ModelError(PredictError):
    """INTERNAL: the model raised, or its answer cannot be written or read. See the server's log."""


class Unavailable(PredictError):
    """UNAVAILABLE: no server answers, or it is starting or shutting down. `predict` has already retried."""


class ResourceExhausted(PredictError):
    """RESOURCE_EXHAUSTED: the server is overloaded, or the payload or the answer exceeds a limit.

    Overload has the reason REQUEST_LIMIT_EXCEEDED, and `predict` has already retried.
    """


class DeadlineExceeded(PredictError):
    """DEADLINE_EXCEEDED: no answer came within the timeout."""


class Unauthenticated(PredictError):
    """UNAUTHENTICATED: the call has no token, or one that is not valid or has expired; `error_class` says which."""


class PermissionDenied(PredictError):
    """PERMISSION_DENIED: the server knows the caller, and does not let it call this model or service."""


_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

_BY_CODE: dict[grpc.StatusCode, type[PredictError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.INTERNAL: ModelError,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
}


def failure(code: grpc.StatusCode, message: str, **details: Any) -> PredictError:
    """The PredictError of a status code; `details` are the further arguments of PredictError."""
    return _BY_CODE.get(code, PredictError)(code, message, **details)


def client_closed() -> PredictError:
    """The error of a call that a closed client does not make, or has cancelled."""
    return failure(grpc.StatusCode.CANCELLED, "The client is closed.")


def deadline_exceeded(timeout_s: float | None, hint: str = "") -> PredictError:
    """The error of a call without an answer within its timeout in seconds."""
    return failure(grpc.StatusCode.DEADLINE_EXCEEDED, f"No answer came within {timeout_s or 0:g} s.{hint}")


def from_rpc_error(error: Any) -> PredictError:
    """The PredictError for an error of `grpc` or `grpc.aio`."""
    trailers = dict(error.trailing_metadata() or ())
    details = status_details(trailers.get("grpc-status-details-bin") or b"")
    details["request_id"] = details.get("request_id") or trailers.get(REQUEST_ID_KEY) or ""
    return failure(error.code(), error.details() or "", **details)


def status_details(data: bytes) -> dict[str, Any]:
    """The arguments of PredictError in a serialised google.rpc.Status; empty if a proxy has damaged it."""
    info, bad_request, debug = (
        _wire.message_class(f"google.rpc.{name}")() for name in ("ErrorInfo", "BadRequest", "DebugInfo")
    )
    try:
        for detail in _wire.message_class("google.rpc.Status").FromString(data).details:
            for message in (info, bad_request, debug):
                if detail.type_url.endswith(f"/{message.DESCRIPTOR.full_name}"):
                    message.ParseFromString(detail.value)
    except DecodeError:
        return {}
    return {
        "reason": info.reason,
        "request_id": info.metadata.get("request_id", ""),
        "error_class": info.metadata.get("error_class", ""),
        "violations": _violations(bad_request),
        "exception": "\n  at ".join([debug.detail, *debug.stack_entries]),
    }


def _violations(message: Any) -> tuple[FieldViolation, ...]:
    return tuple(FieldViolation(item.field, item.description) for item in message.field_violations)


def from_error_message(error: Any, request_id: str = "") -> PredictError:
    """The PredictError for an error message in a stream, which is Output.Error or that of a typed output."""
    return failure(
        _CODES.get(error.code, grpc.StatusCode.UNKNOWN),
        error.message,
        reason=error.reason,
        request_id=request_id,
        error_class=error.error_class,
        violations=_violations(error),
    )
