"""What a call can fail with, with everything that the server said about it."""

from dataclasses import dataclass
from typing import Any

import grpc

from mlflow_grpc_client import _wire


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One column, tensor or param that is at fault."""

    field: str
    """The name in the model's signature; `params.<name>` for a param."""
    description: str


class PredictError(Exception):
    """A call failed. The subclass says what to do about it, the attributes say more."""

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
        """Args:
        code: The gRPC status code.
        message: What the server said.
        reason: MLflow's error code, such as INVALID_PARAMETER_VALUE; empty if the server gave none.
        request_id: The id under which the server's log has the call; empty if the server gave none.
        error_class: MLflow's finer classification, such as SCHEMA_ENFORCEMENT_FAILED, or the type of the exception that
            the model raised, such as ValueError.
        violations: The fields at fault, as far as the server named them.
        exception: What the model raised: type, text and the last lines of the traceback, from a server with
            `--show-exceptions`; empty from others.
        """
        # All of them, so that the error can be pickled on its way out of a process pool.
        super().__init__(code, message, reason, request_id, error_class, violations, exception)
        self.code = code
        self.message = message
        self.reason = reason
        self.request_id = request_id
        self.error_class = error_class
        self.violations = violations
        self.exception = exception

    def __str__(self) -> str:
        """The code and the message, and what that does not name: the fields at fault, the error's class, the id."""
        said = f"{self.code.name}: {self.message}"
        violations = [f"{each.field}: {each.description}" for each in self.violations]
        if unsaid := [each for each in violations if each not in self.message]:
            said += f" [{'; '.join(unsaid)}]"
        beside = [self.error_class] if self.error_class and self.error_class not in self.message else []
        beside += [f"request id {self.request_id}"] if self.request_id else []
        return said + (f" ({', '.join(beside)})" if beside else "")


class InvalidInput(PredictError):
    """INVALID_ARGUMENT: the payload, its columns or its params are not what the model takes. Change them."""


class ModelError(PredictError):
    """INTERNAL: the model raised, or its answer cannot be written or read. The server's log has more."""


class Unavailable(PredictError):
    """UNAVAILABLE: no server answers, or it is loading or shutting down. `predict` has tried again already."""


class ResourceExhausted(PredictError):
    """RESOURCE_EXHAUSTED: the server has too many calls (reason REQUEST_LIMIT_EXCEEDED; `predict` has tried again
    already), or the payload or the answer is over a limit.
    """


class DeadlineExceeded(PredictError):
    """DEADLINE_EXCEEDED: neither the server nor the network was quick enough."""


_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

_BY_CODE: dict[grpc.StatusCode, type[PredictError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.INTERNAL: ModelError,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def failure(code: grpc.StatusCode, message: str, **details: Any) -> PredictError:
    """The PredictError for a status code; `details` are the other arguments of PredictError."""
    return _BY_CODE.get(code, PredictError)(code, message, **details)


def from_rpc_error(error: Any) -> PredictError:
    """The PredictError for what grpcio raised, of the synchronous or the asyncio stack."""
    trailers = dict(error.trailing_metadata() or ())
    status = _wire.status_details(trailers.get(_wire.DETAILS_KEY) or b"")
    return failure(
        error.code(),
        error.details() or "",
        reason=status.reason,
        request_id=status.metadata.get("request_id") or trailers.get(_wire.REQUEST_ID_KEY) or "",
        error_class=status.metadata.get("error_class", ""),
        violations=tuple(FieldViolation(*violation) for violation in status.violations),
        exception=status.exception,
    )


def from_error_message(error: Any, request_id: str = "") -> PredictError:
    """The PredictError for an error in the place of an answer of a stream: Output.Error, or that of a typed output."""
    return failure(
        _CODES.get(error.code, grpc.StatusCode.UNKNOWN),
        error.message,
        reason=error.reason,
        request_id=request_id,
        error_class=error.error_class,
        violations=tuple(FieldViolation(each.field, each.description) for each in error.field_violations),
    )
