"""Checks that a predicted value has the form of a type in a signature: a list, a dictionary, or a single value.

Rule of this module: only the form counts. The writer of a message checks that a number is exact in its field.
"""

from typing import Any

import pydantic
from mlflow.types.schema import AnyType, Array, Map, Object

from mlflow_grpc.payload.protobuf.values import is_list, is_nothing


def has_form(value: Any, schema_type: Any) -> bool:
    """Returns True if a value has the form of an MLflow type. The first item of a list that is not null decides."""
    if is_nothing(value) or isinstance(schema_type, AnyType):
        return True
    if isinstance(schema_type, Array):
        return is_list(value) and has_form(
            next((item for item in value if not is_nothing(item)), None), schema_type.dtype
        )
    content = value.model_dump() if isinstance(value, pydantic.BaseModel) else value
    if isinstance(schema_type, Map):
        return isinstance(content, dict) and all(has_form(item, schema_type.value_type) for item in content.values())
    if isinstance(schema_type, Object):
        types = {prop.name: prop.dtype for prop in schema_type.properties}
        return isinstance(content, dict) and all(
            name in types and has_form(item, types[name]) for name, item in content.items()
        )
    return not is_list(value) and not isinstance(content, dict)


def is_wrapped(row: Any, schema_type: Any) -> bool:
    """Returns True if a row is not the value of the only output but holds it, under any name or as its only item."""
    if isinstance(row, dict):
        return len(row) == 1 and not has_form(row, schema_type) and has_form(next(iter(row.values())), schema_type)
    return is_list(row) and len(row) == 1 and not has_form(row, schema_type) and has_form(row[0], schema_type)
