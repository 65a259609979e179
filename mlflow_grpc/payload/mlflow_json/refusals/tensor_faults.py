"""Faults of nested arrays that do not fit a model's tensors.

Rule of this module: numpy judges elements, through the call that MLflow makes. Shapes are compared as MLflow compares
them: the number of dimensions, and each size that is not -1.
"""

from typing import Any

import numpy as np
from mlflow.types import Schema, TensorSpec

from mlflow_grpc.errors import FieldViolation
from mlflow_grpc.payload.codec import ABSENT
from mlflow_grpc.payload.mlflow_json.refusals import json_terms
from mlflow_grpc.payload.mlflow_json.refusals.value_faults import Fault


def is_empty(key: str, value: Any) -> bool:
    """Returns True if a payload has no rows."""
    return (value["data"] if key == "dataframe_split" else value) in ([], {})


def violations(key: str, value: Any, schema: Schema, *, is_message: bool) -> list[FieldViolation]:
    """Returns the faults of the tensors in a payload.

    Args:
        key: Key of the format, such as `inputs`.
        value: Value under the key.
        schema: The model's input schema.
        is_message: True if the payload was made from a message, in which a path is the name of the tensor.

    """
    refused = []
    specs: list[Any] = list(schema.inputs)
    for index, spec in enumerate(specs):
        field = str(spec.name) if spec.name is not None else str(index)
        path, tensor = _tensor(key, value, spec, only=len(specs) == 1)
        if key == "dataframe_records" and spec.name is None:
            refused.append(
                FieldViolation(field, f"has no name: send inputs, which must be {json_terms.expected(spec)}")
            )
            continue
        if is_message:
            path = str(spec.name) if spec.name is not None else "value"
        if tensor is ABSENT:
            refused.append(FieldViolation(field, f"missing; must be {json_terms.expected(spec)}"))
        elif (fault := _fault(tensor, spec, path)) is not None:
            refused.append(FieldViolation(field, str(fault)))
    return refused


def _tensor(key: str, value: Any, spec: TensorSpec, *, only: bool) -> tuple[str, Any]:
    """Returns the path of a tensor in the payload, and its value."""
    if spec.name is None:
        return ("dataframe_split.data", value["data"]) if key == "dataframe_split" else (key, value)
    name = str(spec.name)
    if key == "dataframe_split":
        columns = value.get("columns") or []
        position = columns.index(name) if name in columns else None
        return f"{key}.data[*][{position}]", ABSENT if position is None else [row[position] for row in value["data"]]
    if isinstance(value, dict):
        return f"{key}{json_terms.step(name)}", value.get(name, ABSENT)
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        lacking = any(name not in item for item in value)
        return f"{key}[*]{json_terms.step(name)}", ABSENT if lacking else [item[name] for item in value]
    return key, value if only else ABSENT


def _fault(value: Any, spec: TensorSpec, path: str) -> Fault | None:
    if isinstance(value, dict) or value is None:
        return Fault(path, f"is {json_terms.article(value)}", f"must be {json_terms.expected(spec)}")
    if not _is_array(value, spec):
        return _element_fault(value, spec, path)
    shape = np.shape(np.array(value, dtype=spec.type))
    expected = tuple(spec.shape)
    if len(shape) == len(expected) and all(size in (-1, got) for size, got in zip(expected, shape, strict=True)):
        return None
    return Fault(path, f"has shape {shape}", f"must be {json_terms.expected(spec)}")


def _element_fault(value: Any, spec: TensorSpec, path: str) -> Fault:
    """Returns the fault of the first element that is refused, or of the first array with another shape."""
    while isinstance(value, list):
        index = next((index for index, item in enumerate(value) if not _is_array(item, spec)), None)
        if index is None:
            return _ragged(value, spec, path)
        value, path = value[index], _at(path, index)
    problem = f"is {json_terms.article(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and spec.type.kind in "iu":
        problem = "is a whole number that does not fit"
    return Fault(path, problem, f"must be {_element(spec)}")


def _ragged(items: list[Any], spec: TensorSpec, path: str) -> Fault:
    shapes = [np.shape(np.array(item, dtype=spec.type)) for item in items]
    ragged = next((index for index, shape in enumerate(shapes) if shape != shapes[0]), None)
    if ragged is None:
        return Fault(path, "is no tensor", f"must be {json_terms.expected(spec)}")
    return Fault(_at(path, ragged), f"has shape {shapes[ragged]}", f"must have {shapes[0]} like {_at(path, 0)}")


def _at(path: str, index: int) -> str:
    """Returns the path of an item; a star in the path is replaced by its index."""
    return path.replace("[*]", f"[{index}]", 1) if "[*]" in path else f"{path}[{index}]"


def _is_array(value: Any, spec: TensorSpec) -> bool:
    try:
        np.array(value, dtype=spec.type)
    except Exception:  # noqa: BLE001 - every exception is a refusal
        return False
    return True


def _element(spec: TensorSpec) -> str:
    dtype = spec.type
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        return f"{dtype.name}: a whole number from {bounds.min} to {bounds.max}"
    names = {
        "f": "a number, such as 1.5",
        "b": "true or false",
        "U": "a string",
        "S": "a string in ASCII",
        "M": 'a date and time as a string, such as "2020-02-29T12:00:00"',
    }
    return f"{dtype.name}: {names.get(dtype.kind, 'a value of that type')}"
