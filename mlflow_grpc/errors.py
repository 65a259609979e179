"""The errors that a call or a start of the server can end in.

Rule of this module: an error has a fault (who has to act), a gRPC status by name, a stable reason, and a message that
is safe for any caller. The message contains no file path and no text from the model. Of the payload it contains at most
names that the caller chose, and those are left out of the log. Details for operators are in `__cause__` and are logged.
Only `mlflow_grpc.services.status` turns errors into gRPC responses.

It has more than 300 lines, because it is the list of all errors.
"""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mlflow_grpc.naming import without_secrets

MAX_FRAMES, MAX_SHOWN_CHARACTERS = 4, 1000
"""Maximum number of traceback lines and of characters of an exception's text that callers may see."""


FRAME = "\n  at "
"""Prefix of each traceback line that callers may see."""


class Status(StrEnum):
    """The gRPC status codes that this server answers with, by their names in the gRPC specification.

    UNKNOWN is left out on purpose: it would mean that nobody thought about the case.
    """

    CANCELLED = "CANCELLED"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"
    UNAUTHENTICATED = "UNAUTHENTICATED"


class Fault(StrEnum):
    """Party that has to act before the same call can succeed."""

    CALLER = "caller"
    MODEL = "model"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One column, tensor or param at fault; becomes an entry of google.rpc.BadRequest."""

    field: str
    """Name in the model's signature; `params.<name>` for a param, the position if there is no name, the path to the
    value for a model with type hints."""
    description: str
    """Path to the value in the payload, what is wrong with it, and what to write instead."""

    def as_dict(self) -> dict[str, str]:
        """Returns the violation as JSON and as the fields of a protobuf message have it."""
        return {"field": self.field, "description": self.description}


class ServingError(Exception):
    """Base class of errors that a call is answered with. Raise one of its subclasses."""

    status = Status.INTERNAL
    fault = Fault.SERVER
    reason = "INTERNAL_ERROR"
    is_frequent = False
    """True if the log counts such errors, instead of a line for each, because callers can cause any number."""
    http_status: int | None = None
    """HTTP status, if it does not follow from the gRPC status (`mlflow_grpc.http.errors`)."""

    def __init__(
        self,
        message: str,
        *,
        status: Status | None = None,
        reason: str | None = None,
        error_class: str | None = None,
        http_status: int | None = None,
        violations: tuple[FieldViolation, ...] = (),
        logged: str | None = None,
    ) -> None:
        """Makes an error for the caller.

        Args:
            message: What is wrong and what to do, safe to show to the caller.
            status: Overrides the class's gRPC status.
            reason: Overrides the class's reason, with one of MLflow's error codes where MLflow has one.
            error_class: MLflow's finer classification, such as SCHEMA_ENFORCEMENT_FAILED, or the type of the model's
                exception, such as ValueError.
            http_status: Overrides the class's HTTP status.
            violations: The columns or params at fault, if they are known.
            logged: Text for the log, if the message repeats names that the caller chose.

        """
        super().__init__(message)
        self.message = message
        self.status = status or self.status
        self.reason = reason or self.reason
        self.error_class = error_class
        self.http_status = http_status or self.http_status
        self.violations = violations
        self.logged = message if logged is None else logged
        self.shown: str | None = None
        """The model's exception in the form of `shown`, if callers may see it (`--show-exceptions`)."""

    @property
    def text(self) -> str:
        """The message with the model's exception, if callers may see it."""
        return self.message if self.shown is None else f"{self.message} {self.shown}"


def shown(error: BaseException) -> str:
    """Formats an exception for `--show-exceptions`: type, text and traceback, innermost call first.

    Lines of code and directories are left out, because they mean nothing to a caller.
    """
    text = "".join(traceback.format_exception_only(error)).strip()
    text = text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    locations = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} in {frame.name}" for frame in reversed(frames)]
    return FRAME.join([text, *locations])


class InvalidPayload(ServingError):
    """The payload, its columns or its params do not fit the model; MLflow answers 400."""

    status = Status.INVALID_ARGUMENT
    fault = Fault.CALLER
    reason = "BAD_REQUEST"


class RefusedByModel(InvalidPayload):
    """The model itself refused a record, with ml-base's `MLModelSchemaValidationException`."""

    refusal = ""
    """The text of that exception, which is for the caller."""


class InvalidMessage(ServingError):
    """The bytes of the request are not a valid protobuf message of the method's type."""

    status = Status.INVALID_ARGUMENT
    fault = Fault.CALLER
    reason = "MALFORMED_REQUEST"


class UnsupportedContentType(ServingError):
    """The model does not take the payload's content type; MLflow answers 415."""

    status = Status.INVALID_ARGUMENT
    fault = Fault.CALLER
    reason = "UNSUPPORTED_CONTENT_TYPE"
    http_status = 415

    def __init__(self, supported: Sequence[str], *, binary: Sequence[str] = (), advice: str = "") -> None:
        """Makes an error for a caller over gRPC.

        Args:
            supported: Media types of text that the model takes, the default first.
            binary: Further media types, which only HTTP can carry.
            advice: A sentence that explains them.

        """
        self.supported = (*supported, *binary)
        self.advice = advice
        types = (
            supported[0] if len(supported) == 1 else f"one of {', '.join(supported)} (the default is {supported[0]})"
        )
        message = f"The metadata key mlflow-content-type must be {types}, with no parameter but charset=utf-8. {advice}"
        super().__init__(message.strip())


class UnsupportedContentEncoding(ServingError):
    """The body of an HTTP request is compressed in a way that the server does not read."""

    status = Status.INVALID_ARGUMENT
    fault = Fault.CALLER
    reason = "UNSUPPORTED_CONTENT_ENCODING"
    http_status = 415


class PayloadTooLarge(ServingError):
    """The request is larger than `--max-message-bytes`."""

    status = Status.RESOURCE_EXHAUSTED
    fault = Fault.CALLER
    reason = "PAYLOAD_TOO_LARGE"
    http_status = 413


class ModelFailed(ServingError):
    """The model's own code raised. The exception is the `__cause__` and is only logged.

    An `MlflowException` keeps the status and reason of its error code. Any other exception is INTERNAL.
    """

    fault = Fault.MODEL


class UnserializableOutput(ServingError):
    """The model's output cannot be written as an answer; MLflow answers 500."""

    fault = Fault.MODEL


class TimeLimitExceeded(ServingError):
    """The call took longer than the server's time limit or the caller's deadline."""

    status = Status.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class CallerDeadlineExceeded(TimeLimitExceeded):
    """The caller's deadline passed, so nobody waits for later answers of the call either."""

    def __init__(self, message: str = "The call was not answered before the caller's deadline.") -> None:
        super().__init__(message)


class RequestReadTimeout(TimeLimitExceeded):
    """The request did not arrive in time."""

    fault = Fault.CALLER
    http_status = 408


class ResponseReadTimeout(TimeLimitExceeded):
    """The caller did not read its answer in time."""

    fault = Fault.CALLER

    def __init__(self, limit_s: float) -> None:
        """Makes the error for a message of a stream that was not read within a number of seconds."""
        super().__init__(f"The stream has ended, because no message of it was read for {limit_s:g} s. Read it faster.")


class NotReady(ServingError):
    """The model is not loaded yet, or the server is draining; another server may answer."""

    status = Status.UNAVAILABLE
    reason = "TEMPORARILY_UNAVAILABLE"


class CallerNotChecked(NotReady):
    """The JWT of a caller cannot be checked now; the reason is in `error_class`."""

    is_frequent = True


class Overloaded(ServingError):
    """There is no room for another call; the same call may succeed a little later."""

    status = Status.RESOURCE_EXHAUSTED
    reason = "REQUEST_LIMIT_EXCEEDED"
    is_frequent = True

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        """Makes an error for the caller.

        Args:
            message: What is wrong and what to do, safe to show to the caller.
            retry_after_s: Time after which the caller should try again, in seconds.

        """
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unsupported(ServingError):
    """The model does not support the method."""

    status = Status.UNIMPLEMENTED
    fault = Fault.CALLER
    reason = "NOT_IMPLEMENTED"


class ContractChanged(ServingError):
    """The call was compiled against messages that the model no longer has."""

    status = Status.FAILED_PRECONDITION
    fault = Fault.CALLER
    reason = "CONTRACT_CHANGED"


class Unauthenticated(ServingError):
    """The call has no proof of its caller's name, or one that is not valid. Its message repeats nothing of it."""

    status = Status.UNAUTHENTICATED
    fault = Fault.CALLER
    reason = "UNAUTHENTICATED"
    is_frequent = True


class PermissionDenied(ServingError):
    """The caller is known, and may not do what it asks for."""

    status = Status.PERMISSION_DENIED
    fault = Fault.CALLER
    reason = "PERMISSION_DENIED"


class UnknownModel(ServingError):
    """The call names a model that this server does not host."""

    status = Status.NOT_FOUND
    fault = Fault.CALLER
    reason = "RESOURCE_DOES_NOT_EXIST"


class UnknownService(ServingError):
    """A health check names a service or model that this server does not have."""

    status = Status.NOT_FOUND
    fault = Fault.CALLER
    reason = "RESOURCE_DOES_NOT_EXIST"


class ModelNotNamed(ServingError):
    """The call names no model, and none of the server's models is the default."""

    status = Status.INVALID_ARGUMENT
    fault = Fault.CALLER
    reason = "INVALID_PARAMETER_VALUE"


class ModelNotLoaded(ServingError):
    """The model could not be loaded, at the start or by a reload; it stays as it is until another attempt."""

    status = Status.FAILED_PRECONDITION
    reason = "INVALID_STATE"
    http_status = 503


class StartError(Exception):
    """The server cannot start. The message is one line that says what is wrong and what to do.

    Secrets in URLs are masked, whether they come from a setting, a requirement or an error of a library.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        """Makes an error of one line.

        Args:
            message: The line.
        """
        super().__init__(without_secrets(message))


class OwnCodeDiffers(StartError):
    """A model brings Python code along whose module name is in use by different code of another model."""

    def __init__(self, message: str, module: str) -> None:
        """Makes an error of one line.

        Args:
            message: The line.
            module: Name of the module.
        """
        super().__init__(message)
        self.module = module


class NotWritten(StartError):
    """A file or directory that a command should write cannot be written."""

    exit_code = 1


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turns an OSError of the block, which must do nothing but write, into NotWritten.

    Args:
        path: File or directory to write, named in the message unless the error has a more exact path.
    """
    try:
        yield
    except OSError as error:
        raise NotWritten(f"cannot write {error.filename or path}: {error.strerror or error}") from error


class AddressUnavailable(StartError):
    """The address cannot be listened on: it is taken, not local, or not permitted."""

    exit_code = 1
