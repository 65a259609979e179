"""The routes of the Open Inference Protocol in the OpenAPI document.

Source: https://github.com/kserve/open-inference-protocol, and Triton's extensions. Rule of this module: it describes
what `mlflow_grpc.http.open_inference` answers.
"""

from typing import Any

from _mlflow_grpc_protocol.metadata import REQUEST_ID_KEY

from mlflow_grpc.calls.inference_models import STATES
from mlflow_grpc.contract.types import JsonSchema
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.http.http_call import TIMEOUT_HEADER
from mlflow_grpc.http.open_inference import ALL_STATISTICS, BINARY, MODEL_PATHS, PREFIX
from mlflow_grpc.http.openapi.components import reference
from mlflow_grpc.http.response import JSON
from mlflow_grpc.payload.tensors.datatypes import DATATYPES
from mlflow_grpc.payload.tensors.json_request import JSON_LENGTH_HEADER
from mlflow_grpc.payload.tensors.table import TensorColumn, inputs_of

Json = dict[str, Any]

_STRING: Json = {"type": "string"}
_INTEGER: Json = {"type": "integer"}
_DATATYPE: Json = {"type": "string", "enum": list(DATATYPES)}
_SIZES: Json = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_DATA: Json = {"type": "array", "description": "The elements in row-major order, nested or flat."}
_PARAMETERS: Json = {"type": "object"}


def _object(required: Json, **optional: Json) -> Json:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


def _schema(name: str) -> Json:
    return reference("schemas", name)


_TENSOR = {"name": _STRING, "datatype": _DATATYPE}

SCHEMAS: Json = {
    "InferenceError": {**_object({"error": _STRING}), "description": "The problem and how to solve it."},
    "InferenceServer": _object({"name": _STRING, "version": _STRING, "extensions": _array(_STRING)}),
    "InferenceReadiness": _object({"ready": {"type": "boolean"}}, name=_STRING),
    "InferenceTensor": {
        **_object({**_TENSOR, "shape": _array({"type": "integer", "minimum": -1})}),
        "description": "A tensor of a model. A dimension of -1 has any size.",
    },
    "InferenceModel": _object(
        {
            "name": _STRING,
            "versions": _array(_STRING),
            "platform": _STRING,
            "inputs": _array(_schema("InferenceTensor")),
            "outputs": _array(_schema("InferenceTensor")),
            "properties": {"type": "object", "additionalProperties": _STRING},
        }
    ),
    "InferenceConfig": {
        **_object(
            {
                "name": _STRING,
                "platform": _STRING,
                "backend": _STRING,
                "max_batch_size": _INTEGER,
                "input": _array({"type": "object"}),
                "output": _array({"type": "object"}),
            }
        ),
        "description": "The model in the form of Triton's ModelConfig.",
    },
    "InferenceStatistics": _object(
        {
            "model_stats": _array(
                _object(
                    {
                        "name": _STRING,
                        "version": _STRING,
                        "last_inference": _INTEGER,
                        "inference_count": _INTEGER,
                        "execution_count": _INTEGER,
                        "inference_stats": {"type": "object"},
                    }
                )
            )
        }
    ),
    "InferenceIndex": _array(
        _object(
            {
                "name": _STRING,
                "version": _STRING,
                "state": {"type": "string", "enum": list(STATES.values())},
                "reason": _STRING,
            }
        )
    ),
    "InferenceInput": {
        **_object({**_TENSOR, "shape": _SIZES}, parameters=_PARAMETERS, data=_DATA),
        "description": "A tensor. Its elements are in `data`, or behind the JSON, with `binary_data_size` in the "
        "parameters.",
    },
    "InferenceRequestedOutput": _object({"name": _STRING}, parameters=_PARAMETERS),
    "InferenceOutput": _object({**_TENSOR, "shape": _SIZES}, parameters=_PARAMETERS, data=_DATA),
    "InferenceResponse": _object(
        {"model_name": _STRING, "outputs": _array(_schema("InferenceOutput"))},
        model_version=_STRING,
        id=_STRING,
        parameters=_PARAMETERS,
    ),
}

RESPONSES: Json = {
    "InferenceFailed": {
        "description": "The call failed.",
        "content": {JSON: {"schema": _schema("InferenceError")}},
    },
    "InferenceAnswered": {
        "description": "The outputs. With binary outputs, their bytes follow the JSON.",
        "headers": {JSON_LENGTH_HEADER: {"schema": _INTEGER, "description": "Length of the JSON in bytes."}},
        "content": {JSON: {"schema": _schema("InferenceResponse")}, BINARY: {}},
    },
}

_FAILED = reference("responses", "InferenceFailed")

_CALL_FAILURES: Json = dict.fromkeys(("400", "404", "408", "413", "429", "500", "501", "503", "504"), _FAILED)

PARAMETERS: Json = {
    JSON_LENGTH_HEADER: {
        "name": JSON_LENGTH_HEADER,
        "in": "header",
        "description": "Length of the JSON in bytes, if binary tensors follow it.",
        "schema": {"type": "integer", "minimum": 1},
    }
}


def infer_operation(operation_id: str, summary: str, tag: str, body: str) -> Json:
    """Returns the operation that calls a model.

    Args:
        operation_id: Its id.
        summary: Its title.
        tag: Name of the model.
        body: Name of the component with the body of the request.

    """
    headers = (TIMEOUT_HEADER, REQUEST_ID_KEY, JSON_LENGTH_HEADER)
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": [tag],
        "parameters": [reference("parameters", header) for header in headers],
        "requestBody": reference("requestBodies", body),
        "responses": {"200": reference("responses", "InferenceAnswered"), **_CALL_FAILURES},
    }


def request_schema(model: ServableModel) -> JsonSchema:
    """Returns the schema of an inference request to a model."""
    columns = inputs_of(model.model.info.contract)
    inputs: Json = _array(_schema("InferenceInput"))
    named = [column for column in columns if column.required and not column.is_unnamed]
    if named:
        inputs["allOf"] = [_contains(column) for column in named]
    elif columns:
        inputs["minItems"] = 1
    outputs = _array(_schema("InferenceRequestedOutput"))
    return _object({"inputs": inputs}, id=_STRING, parameters=_PARAMETERS, outputs=outputs)


def _contains(column: TensorColumn) -> Json:
    shape = ", ".join("any" if size < 0 else str(size) for size in column.shape)
    described = f"{column.datatype} [{shape}]{f', {column.content_type}' if column.content_type else ''}"
    has_name = {"properties": {"name": {"const": column.name}}, "required": ["name"]}
    return {"contains": {"title": f"{column.name}: {described}", **has_name}}


def _get(operation_id: str, summary: str, schema: str, *, parameters: list[Json], failures: tuple[str, ...]) -> Json:
    content = {JSON: {"schema": _schema(schema)}}
    operation: Json = {
        "operationId": operation_id,
        "summary": summary,
        "tags": ["inference"],
        "responses": {"200": {"description": "The answer.", "content": content}, **dict.fromkeys(failures, _FAILED)},
    }
    return {"get": {**operation, **({"parameters": parameters} if parameters else {})}}


def _readiness(operation_id: str, summary: str, *, parameters: list[Json], failures: tuple[str, ...] = ()) -> Json:
    path = _get(operation_id, summary, "InferenceReadiness", parameters=parameters, failures=failures)
    content = {JSON: {"schema": _schema("InferenceReadiness")}}
    path["get"]["responses"]["503"] = {"description": "It does not take calls.", "content": content}
    return path


def paths(names: list[str], versions: list[str]) -> Json:
    """Returns the routes that call no model.

    Args:
        names: Names of the models.
        versions: Versions of the models that have one.

    """
    live = {"description": "The server lives.", "content": {JSON: {"schema": _object({"live": {"type": "boolean"}})}}}
    index = {"description": "The models.", "content": {JSON: {"schema": _schema("InferenceIndex")}}}
    only_ready = _object({}, ready={"type": "boolean"})
    content = {JSON: {"schema": only_ready, "examples": {"ready": {"value": {"ready": True}}}}}
    statistics = ("501",)
    made: Json = {
        PREFIX: _get("inference_server", "Describe the server", "InferenceServer", parameters=[], failures=()),
        f"{PREFIX}/health/live": {
            "get": {
                "operationId": "inference_live",
                "summary": "Check whether the server lives",
                "tags": ["inference"],
                "responses": {"200": live},
            }
        },
        f"{PREFIX}/health/ready": _readiness("inference_ready", "Check whether the server takes calls", parameters=[]),
        f"{PREFIX}/repository/index": {
            "post": {
                "operationId": "inference_index",
                "summary": "List the models and their states",
                "tags": ["inference"],
                "requestBody": {"content": content},
                "responses": {"200": index, "400": _FAILED, "408": _FAILED, "413": _FAILED},
            }
        },
        f"{PREFIX}/models/{ALL_STATISTICS}": _get(
            "inference_all_statistics",
            "Get the statistics of all models",
            "InferenceStatistics",
            parameters=[],
            failures=statistics,
        ),
    }
    if not names:
        return made
    parameters = [_in_path("name", names), _in_path("version", versions)]
    forms = [(MODEL_PATHS[0], "", parameters[:1])]
    if versions:
        forms.append((MODEL_PATHS[1], "_version", parameters))
    failures = ("404", "503")
    for path, suffix, of_path in forms:
        more: Any = {"parameters": of_path, "failures": failures}
        made[path] = _get(f"inference_model{suffix}", "Describe a model", "InferenceModel", **more)
        made[f"{path}/ready"] = _readiness(
            f"inference_model_ready{suffix}", "Check whether a model takes calls", parameters=of_path, failures=("404",)
        )
        made[f"{path}/config"] = _get(
            f"inference_config{suffix}", "Describe a model in Triton's form", "InferenceConfig", **more
        )
        made[f"{path}/stats"] = _get(
            f"inference_statistics{suffix}",
            "Get the statistics of a model",
            "InferenceStatistics",
            parameters=of_path,
            failures=(*failures, *statistics),
        )
    return made


def _in_path(name: str, values: list[str]) -> Json:
    schema = {"type": "string", "enum": list(dict.fromkeys(values))}
    return {"name": name, "in": "path", "required": True, "schema": schema}
