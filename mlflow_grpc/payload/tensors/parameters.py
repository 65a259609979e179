"""Parameters of a request: params of the model, and the names that the protocol reserves.

Rule of this module: it reads values. Whether they fit the model is for the codec.
"""

import json
from typing import Any

from mlflow_grpc.contract.types import Enumeration, Field, Record, Scalar
from mlflow_grpc.payload.tensors.reader import CONTENT_TYPE
from mlflow_grpc.payload.tensors.refusals import refuse_parameter, refuse_request
from mlflow_grpc.payload.tensors.table import BASE64, DATETIME, DICT, JSON, NUMPY, PANDAS, STR

RESERVED = frozenset(
    (CONTENT_TYPE, "headers", "sequence_id", "sequence_start", "sequence_end", "priority", "timeout",
     "binary_data_output")
)  # fmt: skip
"""Names of parameters that the protocol, Triton and MLServer give a meaning."""

RESERVED_PREFIX = "triton_"

REQUEST_CONTENT_TYPES = ("", PANDAS, NUMPY, DICT, STR, BASE64, DATETIME, JSON)

MAX_PARAMETERS = 1_024


def content_type(message: Any) -> str:
    """Returns the content type of a request; empty if it has none.

    Raises:
        InvalidPayload: The server does not know it.

    """
    if CONTENT_TYPE not in message.parameters:
        return ""
    value: str = message.parameters[CONTENT_TYPE].string_param
    if value not in REQUEST_CONTENT_TYPES:
        refuse_request(f"The content_type of a request is one of {', '.join(REQUEST_CONTENT_TYPES[1:])}, or left out.")
    return value


def params_of(message: Any, declared: Record | None) -> dict[str, Any]:
    """Returns the params in a request, by name; empty if it has none.

    Lists and objects are texts of JSON, because a parameter is a single value.

    Args:
        message: The ModelInferRequest.
        declared: The params that the model declares. They are read even if the protocol reserves their names.

    Raises:
        InvalidPayload: A parameter has no value, or its JSON is invalid.

    """
    if not message.parameters:
        return {}
    if len(message.parameters) > MAX_PARAMETERS:
        refuse_request(f"The request has {len(message.parameters)} parameters. Send {MAX_PARAMETERS} at most.")
    fields = {field.name: field for field in declared.fields} if declared is not None else {}
    return {
        name: _value(name, parameter, fields.get(name))
        for name, parameter in message.parameters.items()
        if name in fields or not (name in RESERVED or name.startswith(RESERVED_PREFIX))
    }


def _value(name: str, parameter: Any, field: Field | None) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    if choice is None:
        refuse_parameter(name, "it has no value; a client that is older than double_param cannot send floats")
    value = getattr(parameter, choice)
    if field is None or isinstance(field.type, Scalar | Enumeration) or choice != "string_param":
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        refuse_parameter(name, "it is not a single value, so send it as the text of its JSON")
