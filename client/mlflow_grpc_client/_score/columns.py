"""Columns of the output in Arrow: from Python values, and of one type over all parts of a file.

Rule of this module: values that no single Arrow type can hold become JSON texts, in a field that says so. Nothing else
changes a value.
"""

import base64
from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

_IS_JSON = {b"mlflow-grpc": b"json"}
"""Metadata of a field whose texts are JSON values."""

_INFERRED = {"f": pa.float64(), "i": pa.int64()}
"""Types of arrays by numpy's kinds, which are those that Arrow infers from the same Python values."""


def column(name: str, values: Any, data_type: Any = None) -> tuple[Any, Any]:
    """The field and the array of a column.

    Args:
        name: Name of the column.
        values: Python values, None for null; or an array, whose masked values are nulls.
        data_type: Arrow's type of the column; None infers it. Values with dicts, and values for which Arrow
            has no common type, become JSON texts.

    """
    if isinstance(values, np.ndarray):
        if values.ndim == 1:
            array = _array(values, data_type)
            return pa.field(name, array.type), array
        values = values.tolist()
    if data_type is not None:
        return pa.field(name, data_type), pa.array(values, data_type)
    if not any(isinstance(value, dict) or _holds_dicts(value) for value in values):
        try:
            array = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, TypeError):
            pass
        else:
            return pa.field(name, array.type), array
    return json_field(name), pa.array(map(json_text, values), pa.string())


def _array(values: Any, data_type: Any) -> Any:
    data, mask = np.ma.getdata(values), np.ma.getmask(values)
    inferred = _INFERRED.get(data.dtype.kind) if data_type is None else None
    if mask is np.ma.nomask and data.dtype.kind != "b":
        # pa.array would import pandas.
        array = pa.Array.from_buffers(pa.from_numpy_dtype(data.dtype), len(data), [None, pa.py_buffer(data)])
    else:
        array = pa.array(data, mask=None if mask is np.ma.nomask else mask)
    return array if data_type is None and inferred is None else array.cast(data_type or inferred)


def _holds_dicts(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) or _holds_dicts(item) for item in value)


def json_field(name: str) -> Any:
    """A field of JSON texts."""
    return pa.field(name, pa.string(), metadata=_IS_JSON)


def is_json(field: Any) -> bool:
    """Returns True for a field of JSON texts."""
    return bool(field.metadata) and field.metadata.get(b"mlflow-grpc") == b"json"


def json_text(value: Any) -> str | None:
    """A value as JSON; None for null."""
    return None if value is None else json_bytes(value).decode()


def json_bytes(value: Any) -> bytes:
    """A value as JSON: times in ISO 8601, bytes in base64, NaN and infinities as null, decimals as texts."""
    return orjson.dumps(value, default=_jsonable, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)


def _jsonable(value: Any) -> Any:
    if isinstance(value, int):
        return float(value)  # More than 64 bits.
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def unified(schemas: Iterable[Any]) -> Any:
    """The schema that holds the columns of all schemas, in the order of their first appearance.

    Integers and floats become floats, and types that have nothing in common JSON texts.
    """
    fields: dict[str, Any] = {}
    for schema in schemas:
        for field in schema:
            known = fields.get(field.name)
            fields[field.name] = (
                field if known is None or known.equals(field, check_metadata=True) else _common(known, field)
            )
    return pa.schema(list(fields.values()))


def _common(first: Any, second: Any) -> Any:
    if pa.types.is_null(first.type) or pa.types.is_null(second.type):
        return second if pa.types.is_null(first.type) else first
    if is_json(first) or is_json(second):
        return json_field(first.name)
    try:
        (field,) = pa.unify_schemas([pa.schema([first]), pa.schema([second])], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return json_field(first.name)
    return field


def conformed(table: Any, schema: Any) -> Any:
    """A table with the columns of a schema that `unified` has made from its own and others."""
    arrays = []
    for field in schema:
        index = table.schema.get_field_index(field.name)
        if index < 0:
            arrays.append(pa.nulls(table.num_rows, field.type))
        elif is_json(field) and not is_json(table.schema.field(index)):
            arrays.append(pa.array(map(json_text, table.column(index).to_pylist()), pa.string()))
        else:
            arrays.append(table.column(index).cast(field.type))
    return pa.table(arrays, schema=schema)
