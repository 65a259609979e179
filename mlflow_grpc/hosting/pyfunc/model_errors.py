"""Translation of the exceptions of MLflow models to errors of this server.

Rule of this module: every exception of MLflow or of a model becomes InputRejected or ModelFailed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import ERROR_CODE_TO_HTTP_STATUS, MlflowException

from mlflow_grpc.errors import ModelFailed, Status
from mlflow_grpc.hosting.model import InputRejected
from mlflow_grpc.hosting.pyfunc import internals

# Error codes of MLflow whose gRPC status is more precise than the status for their HTTP status.
_STATUS_BY_ERROR_CODE = {
    "ABORTED": Status.ABORTED,
    "ALREADY_EXISTS": Status.ALREADY_EXISTS,
    "CANCELLED": Status.CANCELLED,
    "DATA_LOSS": Status.DATA_LOSS,
    "DEADLINE_EXCEEDED": Status.DEADLINE_EXCEEDED,
    "FEATURE_DISABLED": Status.FAILED_PRECONDITION,
    "INVALID_STATE": Status.FAILED_PRECONDITION,
    "INVALID_STATE_TRANSITION": Status.FAILED_PRECONDITION,
    "MALFORMED_REQUEST": Status.INVALID_ARGUMENT,
    "QUOTA_EXCEEDED": Status.RESOURCE_EXHAUSTED,
    "RESOURCE_ALREADY_EXISTS": Status.ALREADY_EXISTS,
    "RESOURCE_LIMIT_EXCEEDED": Status.RESOURCE_EXHAUSTED,
    "SERVICE_UNDER_MAINTENANCE": Status.UNAVAILABLE,
    "WORKSPACE_TEMPORARILY_UNAVAILABLE": Status.UNAVAILABLE,
}
_STATUS_BY_HTTP = {
    400: Status.INVALID_ARGUMENT,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.NOT_FOUND,
    409: Status.ABORTED,
    429: Status.RESOURCE_EXHAUSTED,
    499: Status.CANCELLED,
    501: Status.UNIMPLEMENTED,
    503: Status.UNAVAILABLE,
    504: Status.DEADLINE_EXCEEDED,
}


def status_of_error_code(error_code: str) -> Status:
    """Returns the gRPC status of an MLflow error code such as RESOURCE_DOES_NOT_EXIST.

    The status of a code without an entry comes from its HTTP status in MLflow
    (`mlflow.exceptions.ERROR_CODE_TO_HTTP_STATUS`). HTTP status 500 becomes INTERNAL.
    """
    by_http = _STATUS_BY_HTTP.get(ERROR_CODE_TO_HTTP_STATUS.get(error_code, 500), Status.INTERNAL)
    return _STATUS_BY_ERROR_CODE.get(error_code, by_http)


@contextmanager
def translate_model_errors() -> Iterator[None]:
    """Translates every exception of MLflow and the model to InputRejected or ModelFailed."""
    try:
        yield
    except BaseException as error:
        if internals.input_was_refused(error):
            raise InputRejected from error
        raise failure_of(
            error, "The model", "Check that the payload has the columns and types the model was trained on."
        ) from error


def failure_of(error: BaseException, raised_by: str, advice: str = "") -> ModelFailed:
    """Returns the ModelFailed for an exception of the model's own code or of a hook.

    Args:
        error: The exception. The status of an MlflowException comes from its error code; its text is only logged.
        raised_by: The code that raised it, as the subject of a sentence.
        advice: A sentence for the caller about any other exception.

    """
    if isinstance(error, MlflowException):
        return ModelFailed(
            f"{raised_by} answered {error.error_code}. Its message is in the server's log, "
            "under the request id of this call.",
            status=status_of_error_code(error.error_code),
            reason=error.error_code,
            error_class=internals.error_class(error),
            http_status=error.get_http_status_code(),
        )
    message = f"{raised_by} raised an exception. It is in the server's log, under the request id of this call."
    return ModelFailed(f"{message} {advice}".rstrip(), error_class=type(error).__name__)
