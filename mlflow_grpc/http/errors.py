"""Conversion of errors to HTTP responses.

Rule of this module: an error has MLflow's `error_code` and a message. Unlike errors of MLflow's own server, it contains
no traceback and nothing from the payload.
"""

import math
from http import HTTPStatus

from mlflow_grpc.errors import (
    ModelFailed,
    Overloaded,
    ServingError,
    Status,
    Unauthenticated,
    UnsupportedContentEncoding,
    UnsupportedContentType,
)
from mlflow_grpc.http.response import TEXT_UTF8, Headers, WholeResponse

# The mapping of google/rpc/code.proto.
_HTTP_STATUS = {
    Status.CANCELLED: 499,
    Status.INVALID_ARGUMENT: 400,
    Status.DEADLINE_EXCEEDED: 504,
    Status.NOT_FOUND: 404,
    Status.ALREADY_EXISTS: 409,
    Status.PERMISSION_DENIED: 403,
    Status.RESOURCE_EXHAUSTED: 429,
    Status.FAILED_PRECONDITION: 400,
    Status.ABORTED: 409,
    Status.UNIMPLEMENTED: 501,
    Status.INTERNAL: 500,
    Status.UNAVAILABLE: 503,
    Status.DATA_LOSS: 500,
    Status.UNAUTHENTICATED: 401,
}

RETRY_KEY = "retry-after"
"""Header with the time after which a refused caller may try again, in seconds (RFC 9110)."""

CHALLENGE = b'Bearer realm="mlflow-grpc"'
"""Value of the header `www-authenticate` of status 401."""

_FAILED_MODEL = HTTPStatus.BAD_REQUEST, "BAD_REQUEST"
"""Status and error code for an exception of the model, as in `mlflow.pyfunc.scoring_server.invocations`."""


def error_of(error: ServingError) -> tuple[int, dict[str, object]]:
    """Returns the status of an error on MLflow's routes, and the JSON for it: `error_code` and `message`."""
    status, error_code = status_of(error), error.reason
    if isinstance(error, ModelFailed) and error.reason == ModelFailed.reason:
        status, error_code = _FAILED_MODEL
    return status, {"error_code": error_code, "message": error.text}


def of_error(error: ServingError, request_id: str = "") -> WholeResponse:
    """Returns the response for a failed call; a request that calls no model has no request id.

    The body is `{"error_code": ..., "message": ...}`, as in `MlflowException.serialize_as_json`, with the request id
    and the columns at fault. The body of status 415 is plain text, as in MLflow.
    """
    status, body = error_of(error)
    if isinstance(error, UnsupportedContentType | UnsupportedContentEncoding):
        return WholeResponse(error.message.encode(), TEXT_UTF8, status)
    if request_id:
        body["request_id"] = request_id
    if error.violations:
        body["violations"] = [violation.as_dict() for violation in error.violations]
    response = WholeResponse.of_json(body, status)
    response.headers += headers_of(error)
    return response


def status_of(error: ServingError) -> int:
    """Returns the HTTP status of an error; a family of routes may use another one."""
    return error.http_status or _HTTP_STATUS[error.status]


def headers_of(error: ServingError) -> Headers:
    """Returns the headers that an error adds to its response: when to try again, and what proves who calls."""
    if isinstance(error, Unauthenticated):
        # RFC 6750, section 3.1: a request without credentials gets no error code.
        is_bare = error.error_class == "NO_CREDENTIALS"
        return [(b"www-authenticate", CHALLENGE if is_bare else CHALLENGE + b', error="invalid_token"')]
    if not isinstance(error, Overloaded):
        return []
    return [(RETRY_KEY.encode(), str(math.ceil(error.retry_after_s)).encode())]
