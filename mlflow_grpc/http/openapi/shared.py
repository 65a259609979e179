"""The parts of the OpenAPI document that are the same for all models: errors, headers, health."""

from typing import Any

from _mlflow_grpc_protocol.metadata import REQUEST_ID_KEY

from mlflow_grpc.calls.call import MAX_REQUEST_ID_CHARACTERS
from mlflow_grpc.http.errors import RETRY_KEY
from mlflow_grpc.http.http_call import TIMEOUT_HEADER
from mlflow_grpc.http.invocations import ARROW, PARAMS_KEY
from mlflow_grpc.http.openapi.components import reference
from mlflow_grpc.http.response import JSON, TEXT_UTF8, media_type_of
from mlflow_grpc.http.rest_model_service import (
    HEALTH,
    PREFIX,
    READINESS,
    SCHEMA_VALIDATION_ERROR,
    SERVICE_ERROR,
    STARTUP,
)
from mlflow_grpc.http.rest_record_request import VALIDATION_ERROR
from mlflow_grpc.telemetry.exposition import OPEN_METRICS, PROMETHEUS

Json = dict[str, Any]

STRING: Json = {"type": "string"}


def _object(required: list[str], **optional: Json) -> Json:
    properties = {**dict.fromkeys(required, STRING), **optional}
    return {"type": "object", "properties": properties, "required": required}


def _of_json(description: str, schema: Json) -> Json:
    return {"description": description, "content": {JSON: {"schema": schema}}}


_DETAILS = _object(["display_name", "qualified_name", "description", "version"])

SCHEMAS: Json = {
    "Error": {
        **_object(
            ["error_code", "message"],
            request_id=STRING,
            violations={"type": "array", "items": _object(["field", "description"])},
        ),
        "description": "The problem and how to solve it. `error_code` is MLflow's.",
    },
    "ServiceError": {
        "type": "object",
        "properties": {
            "type": {"type": "string", "enum": [VALIDATION_ERROR, SCHEMA_VALIDATION_ERROR, SERVICE_ERROR]},
            "messages": {"type": "array", "items": STRING},
        },
        "required": ["type", "messages"],
        "description": "The problem, in the format of rest-model-service.",
    },
    "ModelDetails": _DETAILS,
    "ModelMetadata": {
        **_DETAILS,
        "properties": {
            **_DETAILS["properties"],
            "input_schema": {"type": "object"},
            "output_schema": {"type": "object"},
        },
    },
}

_ERROR = reference("schemas", "Error")

RESPONSES: Json = {
    "BadRequest": _of_json("The payload is invalid, or the model raised an exception.", _ERROR),
    "NotFound": _of_json("There is no such model.", _ERROR),
    "RequestTimeout": _of_json("The request did not arrive in time.", _ERROR),
    "PayloadTooLarge": _of_json("The body is larger than --max-message-bytes.", _ERROR),
    "UnsupportedMediaType": {
        "description": "The model does not support the content type.",
        "content": {media_type_of(TEXT_UTF8): {"schema": STRING}},
    },
    "TooManyRequests": {
        **_of_json("The server is full.", _ERROR),
        "headers": {RETRY_KEY: {"schema": {"type": "integer"}, "description": "Seconds to wait."}},
    },
    "InternalError": _of_json("The model's answer cannot be written as JSON, or the server failed.", _ERROR),
    "Unavailable": _of_json("The model is loading, or the server is shutting down.", _ERROR),
    "GatewayTimeout": _of_json("The call was not answered in time.", _ERROR),
}

_STATUSES = {
    "400": "BadRequest",
    "404": "NotFound",
    "408": "RequestTimeout",
    "413": "PayloadTooLarge",
    "415": "UnsupportedMediaType",
    "429": "TooManyRequests",
    "500": "InternalError",
    "503": "Unavailable",
    "504": "GatewayTimeout",
}

FAILURES: Json = {status: reference("responses", name) for status, name in _STATUSES.items()}

SERVICE_FAILURES: Json = {
    "400": _of_json("The record is invalid.", reference("schemas", "ServiceError")),
    "default": _of_json("The call failed.", reference("schemas", "ServiceError")),
}

PARAMETERS: Json = {
    TIMEOUT_HEADER: {
        "name": TIMEOUT_HEADER,
        "in": "header",
        "description": "Time that the caller waits for the answer, in seconds.",
        "schema": {"type": "number", "exclusiveMinimum": 0},
    },
    PARAMS_KEY: {
        "name": PARAMS_KEY,
        "in": "header",
        "description": f"Params of the model as a JSON object, for a body of the type {ARROW}.",
        "schema": {"type": "string"},
    },
    REQUEST_ID_KEY: {
        "name": REQUEST_ID_KEY,
        "in": "header",
        "description": "Id of the call in the server's log and in the answer.",
        "schema": {"type": "string", "maxLength": MAX_REQUEST_ID_CHARACTERS},
    },
}


def _get(operation_id: str, summary: str, tag: str, responses: Json, *, parameters: list[Json] | None = None) -> Json:
    operation = {"operationId": operation_id, "summary": summary, "tags": [tag], "responses": responses}
    return {"get": {**operation, **({"parameters": parameters} if parameters else {})}}


def _health(operation_id: str) -> Json:
    empty: Json = {JSON: {"schema": {}}}
    return _get(
        operation_id,
        "Check whether the server takes calls",
        "server",
        {
            "200": {"description": "The server takes calls.", "content": empty},
            "503": {"description": "The server does not take calls.", "content": empty},
        },
    )


PATHS: Json = {
    "/ping": _health("ping"),
    "/health": _health("health"),
    "/version": _get(
        "version",
        "Get the version of MLflow",
        "server",
        {"200": {"description": "The version, without quotes.", "content": {JSON: {"schema": {}}}}},
    ),
    "/metrics": _get(
        "metrics",
        "Get the metrics for Prometheus",
        "server",
        {
            "200": {
                "description": "The metrics, in the format of the header accept.",
                "content": {media_type_of(text): {"schema": STRING} for text in (PROMETHEUS, OPEN_METRICS)},
            }
        },
    ),
}


def model_service_paths(names: list[str]) -> Json:
    """Returns the routes of rest-model-service that call no model.

    Args:
        names: Names of the models.

    """
    error = _of_json("The call failed.", reference("schemas", "ServiceError"))
    models = _object([], models={"type": "array", "items": reference("schemas", "ModelDetails")})
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "enum": names}}
    paths: Json = {
        f"{PREFIX}/models": _get("list_models", "List the models", "models", {"200": _of_json("The models.", models)}),
        f"{PREFIX}/models/{{name}}/metadata": _get(
            "model_metadata",
            "Describe a model",
            "models",
            {"200": _of_json("The model.", reference("schemas", "ModelMetadata")), "500": error},
            parameters=[name],
        ),
    }
    for check in (HEALTH, READINESS, STARTUP):
        responses = {
            status: _of_json(value, _object([], **{check.key: {"type": "string", "enum": [value]}}))
            for status, value in (("200", check.good), ("503", check.bad))
        }
        operation_id = f"api{check.path.replace('/', '_')}"
        summary = f"Get the {check.key.replace('_', ' ')}"
        paths[f"{PREFIX}{check.path}"] = _get(operation_id, summary, "server", responses)
    return paths
