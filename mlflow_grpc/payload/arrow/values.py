"""Values of Arrow columns as a caller would write them in JSON, except that bytes stay bytes.

Rule of this module: no value changes. Points in time become ISO 8601 with all digits of their unit.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlflow_grpc.contract.types import Field, ListOf, MapOf, Record, Type
from mlflow_grpc.payload.arrow import predicates
from mlflow_grpc.payload.codec import ABSENT

_NANOS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1, "D": 86_400 * 10**9}
"""Nanoseconds in numpy's units."""

_NOT_A_TIME = -(2**63)


def column_values(array: pa.Array, column: Field, *, with_zone: bool) -> list[Any]:
    """Returns the values of a column; ABSENT in rows where the model allows no null and needs no value.

    Args:
        array: The column.
        column: The column in the model.
        with_zone: True if points in time end with Z; False if they have no zone and are in UTC.

    """
    values = _values(array, with_zone, column.type)
    if array.null_count and not (column.required or column.nullable):
        return [ABSENT if value is None else value for value in values]
    return values


def plain_values(array: pa.Array, *, with_zone: bool = False) -> list[Any]:
    """Returns the values of a column of a model without a signature."""
    return _values(array, with_zone, None)


def _values(array: pa.Array, with_zone: bool, type_: Type | None) -> list[Any]:
    arrow = array.type
    if pa.types.is_dictionary(arrow):
        texts = array.dictionary.to_pylist()
        return [None if index is None else texts[index] for index in array.indices.to_pylist()]
    if predicates.is_moment(arrow):
        return _texts_of_moments(array, with_zone)
    if predicates.is_list(arrow):
        items = _values(array.flatten(), with_zone, type_.items if isinstance(type_, ListOf) else None)
        return _slices(array, items)
    if pa.types.is_map(arrow):
        return _maps(array, with_zone, type_)
    if pa.types.is_struct(arrow):
        return _records(array, with_zone, type_)
    values: list[Any] = array.to_pylist()
    return values


def _slices(array: pa.Array, items: list[Any]) -> list[Any]:
    """Distributes the items of all lists to their rows."""
    rows: list[Any] = []
    start = 0
    for length in pc.list_value_length(array).to_pylist():
        rows.append(None if length is None else items[start : start + length])
        start += length or 0
    return rows


def _maps(array: pa.MapArray, with_zone: bool, type_: Type | None) -> list[Any]:
    keys = array.keys.to_pylist()
    items = _values(array.items, with_zone, type_.values if isinstance(type_, MapOf) else None)
    offsets = array.offsets.to_pylist()
    return [
        dict(zip(keys[start:end], items[start:end], strict=True)) if is_valid else None
        for start, end, is_valid in zip(offsets, offsets[1:], array.is_valid().to_pylist(), strict=False)
    ]


def _records(array: pa.StructArray, with_zone: bool, type_: Type | None) -> list[Any]:
    fields = {column.name: column for column in type_.fields} if isinstance(type_, Record) else {}
    columns: dict[str, list[Any]] = {}
    for index in range(array.type.num_fields):
        name = array.type.field(index).name
        column = fields.get(name)
        child = array.field(index)
        columns[name] = (
            _values(child, with_zone, type_.values if isinstance(type_, MapOf) else None)
            if column is None
            else column_values(child, column, with_zone=with_zone)
        )
    is_map = isinstance(type_, MapOf)
    rows: list[Any] = []
    for row, is_valid in enumerate(array.is_valid().to_pylist()):
        cells = {name: values[row] for name, values in columns.items() if values[row] is not ABSENT}
        if is_map:  # A struct for a map has all keys of all rows.
            cells = {name: value for name, value in cells.items() if value is not None}
        rows.append(cells if is_valid else None)
    return rows


def moments(array: pa.Array) -> npt.NDArray[np.datetime64]:
    """Returns points in time in UTC, in their own unit; NaT for null."""
    arrow = array.type
    if pa.types.is_date32(arrow):
        counts, unit = array.view(pa.int32()).cast(pa.int64()), "D"
    else:
        counts, unit = array.view(pa.int64()), "ms" if pa.types.is_date64(arrow) else arrow.unit
    times: npt.NDArray[np.datetime64] = counts.fill_null(_NOT_A_TIME).to_numpy(zero_copy_only=False)
    return times.view(f"datetime64[{unit}]")


def in_nanoseconds(times: npt.NDArray[np.datetime64]) -> npt.NDArray[np.datetime64] | None:
    """Returns points in time in nanoseconds; None if one is not within the years that 64 bits can count so."""
    factor = _NANOS[np.datetime_data(times.dtype)[0]]
    counts = times.view(np.int64)
    present = counts[counts != _NOT_A_TIME]
    if factor > 1 and present.size and max(-int(present.min()), int(present.max())) > (2**63 - 1) // factor:
        return None
    return times.astype("datetime64[ns]")


def _texts_of_moments(array: pa.Array, with_zone: bool) -> list[Any]:
    times = moments(array)
    nanoseconds = in_nanoseconds(times)
    if nanoseconds is not None:
        times = nanoseconds
    if (
        with_zone
        and nanoseconds is not None
        and not (nanoseconds.view(np.int64) % _NANOS["us"])[~np.isnat(times)].any()
    ):
        times = nanoseconds.astype("datetime64[us]")
    elif nanoseconds is None and pa.types.is_date32(array.type):
        times = times.astype("datetime64[s]")
    suffix = "Z" if with_zone else ""
    texts = np.datetime_as_string(times).tolist()
    # The smallest number is no point in time in numpy, even where Arrow says that there is a value.
    return [
        None if is_missing else f"{text}{suffix}"
        for text, is_missing in zip(texts, np.isnat(times).tolist(), strict=True)
    ]
