"""Rows into the columns of a batch, and columns of answers into rows.

Rule of this module: as of single values; the cells of numpy's and pandas' columns of numbers do not become Python
objects one by one where their bytes are what is sent.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from google.protobuf.message import DecodeError

from mlflow_grpc_client._payloads import kind_of, library
from mlflow_grpc_client._typed import reader, tensors, timestamps, writer
from mlflow_grpc_client._typed.contract import NULLS_NUMBER, Field, Form, Kind, Record
from mlflow_grpc_client._typed.writer import FILLERS, MissingFields, holds_no_nan, is_missing, known_field

_FLOATS = frozenset({Kind.FLOAT, Kind.DOUBLE})
_NUMBERS = frozenset({Kind.BOOLEAN, Kind.INTEGER, *_FLOATS})

_WITHOUT_NULL = {Kind.INTEGER: 1, Kind.BYTES: 1, Kind.BOOLEAN: 2}
"""The columns that MLflow refuses with a null in them, and those of which it makes False."""

_ALWAYS_THERE = {bool, int, float, str, bytes}
"""Types of which no value means that there is none."""

_TEXTS_OR_NONE = {str, type(None)}


class _LeftOut:
    """Stands in a column for a row that does not have it."""


_LEFT_OUT = _LeftOut()

Columns = dict[str, Any]
"""By the names of fields in protobuf: a list, an array or a Series with a value for each row."""


def is_batch(given: Any) -> bool:
    """Whether something is rows, and not one record."""
    if isinstance(given, library("numpy", "ndarray")):
        return bool(given.ndim)
    return isinstance(given, (list, tuple, library("pandas", "DataFrame"), library("pandas", "Series")))


def columns_of(rows: Any, record: Record) -> tuple[int, Columns]:
    """How many rows there are, and their columns.

    Args:
        rows: A list of dicts, a DataFrame, or an array or nested list for a tensor or for columns without names. Where
            the only column has no name and takes dicts, each dict is a value of it.
        record: What one row may have.

    Raises:
        TypeError: They are no rows of such records.
        ValueError: They have another number of columns than the model, which has no names for them.

    """
    if isinstance(rows, library("pandas", "Series")):
        rows = rows.to_frame()
    if isinstance(rows, library("pandas", "DataFrame")):
        return len(rows), _of_frame(rows, record)
    if not len(rows):
        return 0, {}
    only = record.only_nameless
    if all(isinstance(row, Mapping) for row in rows) and not (only is not None and only.takes_dicts):
        return len(rows), _of_records(rows, record)
    if only is not None:
        return len(rows), {only.name: _unnested(rows, only)}
    for place, row in enumerate(rows):
        if not isinstance(row, (Mapping, list, tuple, library("numpy", "ndarray"), library("numpy", "generic"))):
            raise TypeError(f"[{place}]: {kind_of(row)} is no row: give dicts, a DataFrame or lists of values")
    if any(each.word for each in record.fields.values()):
        raise TypeError(
            f"the model's columns have names, {kind_of(rows)} has none: give dicts or a DataFrame; "
            f"there are: {', '.join(each.label for each in record.fields.values())}"
        )
    return len(rows), _of_nameless(rows, record)


def records_of(frame: Any, record: Record) -> Iterator[dict[str, Any]]:
    """The rows of a DataFrame as records, by the names of fields in protobuf.

    Raises:
        TypeError: It has a column that is no field, or several for one.
        ValueError: It has another number of columns than the model, which has no names for them.

    """
    names = _fields_of_frame(frame, record)
    return (dict(zip(names, row, strict=True)) for row in frame.itertuples(index=False, name=None))


def _of_frame(frame: Any, record: Record) -> Columns:
    return {name: frame.iloc[:, place] for place, name in enumerate(_fields_of_frame(frame, record))}


def _fields_of_frame(frame: Any, record: Record) -> list[str]:
    """The field of each column."""
    labels, found = list(frame.columns), []
    if labels == list(range(len(labels))) and not any(each.word for each in record.fields.values()):
        labels = list(record.fields)
        _check_width(len(frame.columns), record)
    for label in labels:
        each = known_field(record, label)
        if each.name in found:
            raise TypeError(f"the DataFrame has several columns for {each.label!r}")
        found.append(each.name)
    return found


def _of_records(rows: Any, record: Record) -> Columns:
    found: Columns = {}
    by_name: Columns = {}
    for place, row in enumerate(rows):
        for name, value in row.items():
            column = by_name.get(name)
            if column is None:
                each = known_field(record, name, f"[{place}]")
                column = by_name[name] = found.setdefault(each.name, [_LEFT_OUT] * len(rows))
            column[place] = value
    if len(by_name) > len(found):  # A field has been called by two names: by one in each row, it is hoped.
        for place, row in enumerate(rows):
            given = [known_field(record, name).name for name in row]
            if twice := [name for name in set(given) if given.count(name) > 1]:
                raise TypeError(f"[{place}].{twice[0]}: given twice, by its name in the model and by that in protobuf")
    return found


def _of_nameless(rows: Any, record: Record) -> Columns:
    if isinstance(rows, library("numpy", "ndarray")) and rows.ndim == 2:  # noqa: PLR2004
        _check_width(rows.shape[1], record)
        return {name: rows[:, place] for place, name in enumerate(record.fields)}
    for row in rows:
        if not isinstance(row, (list, tuple, library("numpy", "ndarray"))):
            raise TypeError(f"{kind_of(row)} is no row: give dicts, a DataFrame or lists of values")
        _check_width(len(row), record)
    return {name: [row[place] for row in rows] for place, name in enumerate(record.fields)}


def _check_width(width: int, record: Record) -> None:
    if width != len(record.fields):
        raise ValueError(f"a row has {width} values, the model takes {len(record.fields)}")


def _unnested(rows: Any, only: Field) -> Any:
    """The values for the only column: rows of one value each may be given as such."""
    if only.form is not Form.ONE or only.type.kind in (Kind.TENSOR, Kind.BOX, Kind.JSON):
        return rows
    if isinstance(rows, library("numpy", "ndarray")):
        return rows[:, 0] if rows.ndim == 2 and rows.shape[1] == 1 else rows  # noqa: PLR2004
    return [row[0] if isinstance(row, list | tuple) and len(row) == 1 else row for row in rows]


def fill(message: Any, record: Record, count: int, columns: Columns) -> None:
    """Writes columns into the message of a batch.

    Args:
        message: An empty message.
        record: What it holds.
        count: How many rows there are.
        columns: Of `columns_of`.

    Raises:
        TypeError: A value is of another type than its column.
        ValueError: A column cannot hold a value, or has none for a row and needs one.
        MissingFields: A column that the model needs is not there.

    """
    told = set()
    for name, values in columns.items():
        if _put(message, record.fields[name], values, count, has_default=name in record.defaulted):
            told.add(name)
    if record.required - told:
        raise MissingFields([each.label for each in record.fields.values() if each.name in record.required - told])
    if not told:
        # The number of rows is that of the entries of a column: one that may be absent can tell it.
        untold = [each for each in record.fields.values() if each.name not in columns and _nulls_name(message, each)]
        for each in sorted(untold, key=lambda each: _WITHOUT_NULL.get(each.type.kind, 0))[:1]:
            _put(message, each, [_LEFT_OUT] * count, count)


def _nulls_name(message: Any, each: Field) -> str | None:
    found = message.DESCRIPTOR.fields_by_number.get(NULLS_NUMBER + each.number)
    return None if found is None else found.name


def _put(message: Any, each: Field, values: Any, count: int, *, has_default: bool = False) -> bool:
    """Writes a column; whether it is there then. One that has no value at all is left out, for the server to judge."""
    nulls = _nulls_name(message, each)
    if isinstance(values, library("numpy", "ndarray")):
        tensors.check_unmasked(values, each.label)
    if each.form is Form.ONE:
        _put_tensor(message, each, values)
        return True
    if each.type.kind is Kind.MOMENT and (whole := timestamps.whole_column(values)) is not None:
        return _put_moments(message, each, whole, nulls, count, has_default=has_default)
    is_series = isinstance(values, library("pandas", "Series"))
    nan_is_none = is_series and each.type.kind is not Kind.JSON and (nulls is not None or each.type.kind not in _FLOATS)
    if is_series:
        values = _array_of(values, looks_at_nan=nan_is_none and (has_default or nulls is None))
    is_numbers = isinstance(values, library("numpy", "ndarray")) and values.dtype.kind in "biuf" and values.ndim == 1
    if is_numbers and each.type.kind in _NUMBERS:
        _put_array(message, each, values, nulls if is_series else None)
        return True
    missing = _missing(values, nan_is_none=nan_is_none or holds_no_nan(each.type))
    if each.type.kind is Kind.JSON:
        missing = [place for place in missing if values[place] is _LEFT_OUT]  # The others are null.
    if has_default and (given := [place for place in missing if values[place] is not _LEFT_OUT]):
        writer.refuse_null(f"{each.label}[{given[0]}]")
    if missing and nulls is None:
        return False if len(missing) == count else _lacks(each, missing[0])
    if missing:
        getattr(message, nulls or "").extend(missing)
        _put_around(getattr(message, each.name), each, values, frozenset(missing))
    else:
        writer.extend(getattr(message, each.name), each.type, values, each.label)
    return True


def _put_moments(
    message: Any, each: Field, whole: timestamps.Column, nulls: str | None, count: int, *, has_default: bool
) -> bool:
    """Writes a column of points in time, as `_put` does."""
    if whole.missing and has_default:
        writer.refuse_null(f"{each.label}[{whole.missing[0]}]")
    if whole.missing and nulls is None:
        return False if len(whole.missing) == count else _lacks(each, whole.missing[0])
    if whole.missing:
        getattr(message, nulls or "").extend(whole.missing)
    timestamps.extend(getattr(message, each.name), whole)
    return True


def _put_tensor(message: Any, each: Field, values: Any) -> None:
    """Writes the tensor of all rows."""
    values = values.tolist() if isinstance(values, library("pandas", "Series")) else values
    if isinstance(values, list) and (missing := _missing(values, nan_is_none=False)):
        _lacks(each, missing[0])
    writer.put(message, each, values, each.label)


def _lacks(each: Field, place: int) -> NoReturn:
    raise ValueError(f"{each.label}[{place}]: there is no value for this row, and the model needs one")


def _array_of(series: Any, *, looks_at_nan: bool) -> Any:
    """The values of a Series: its array if it has one of numpy's numbers, else a list.

    Floats are a list too, if a NaN among them is to be refused with its place.
    """
    kinds = "biu" if looks_at_nan else "biuf"
    return series.to_numpy() if getattr(series.dtype, "str", "")[1:2] in tuple(kinds) else series.tolist()


def _missing(values: Any, *, nan_is_none: bool) -> list[int]:
    """The places of the rows that have no value; NaN is how pandas says so in columns that may have none."""
    kinds = set(map(type, values))
    if kinds <= _ALWAYS_THERE:
        return [place for place, value in enumerate(values) if value != value] if nan_is_none else []  # noqa: PLR0124
    if kinds <= _TEXTS_OR_NONE:
        return [place for place, value in enumerate(values) if value is None]
    return [
        place
        for place, value in enumerate(values)
        if value is _LEFT_OUT or is_missing(value) or (nan_is_none and isinstance(value, float) and math.isnan(value))
    ]


def _put_array(message: Any, each: Field, array: Any, nulls: str | None) -> None:
    if nulls is not None and array.dtype.kind == "f":
        absent = array != array  # noqa: PLR0124 - NaN
        if absent.any():
            getattr(message, nulls).extend(absent.nonzero()[0].tolist())
            array = array.copy()
            array[absent] = 0
    if array.dtype.kind == "f" and each.type.kind is Kind.INTEGER:
        array = array.astype(object)  # pandas keeps whole numbers as floats where some are absent.
    tensors.extend(message, each.name, each.type, array, each.label, writer.scalar)


def _put_around(field: Any, each: Field, values: Any, missing: frozenset[int]) -> None:
    """Writes values, with fillers for those that are missing."""
    kind, is_message = each.type, each.type.record is not None or each.type.kind in (Kind.MOMENT, Kind.JSON)
    if kind.kind in FILLERS:
        filled = list(values)
        for place in missing:
            filled[place] = FILLERS[kind.kind]
        writer.extend(field, kind, filled, each.label)
        return
    for place, value in enumerate(values):
        where = f"{each.label}[{place}]"
        if not is_message:
            field.append(0 if place in missing else writer.scalar(value, kind, where))
        elif place in missing:
            field.add()
        else:
            writer.write(field.add(), kind, value, where)


def rows_of(message: Any, record: Record) -> list[Any]:
    """The answers to the rows of a batch: dicts, or bare values if the only column has no name.

    There are as many as the model gives: for a forecast these may be more than were asked, or fewer.

    Raises:
        DecodeError: The columns are of different lengths.

    """
    read = {each.label: _read(message, each) for each in record.fields.values()}
    count = max(map(len, read.values()), default=0)
    columns = {label: values or [None] * count for label, values in read.items()}
    for label, values in columns.items():
        if len(values) != count:
            raise DecodeError(f"the column {label} has {len(values)} values for {count} rows")
    if record.only_nameless is not None:
        (column,) = columns.values()
        return column
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _read(message: Any, each: Field) -> list[Any]:
    nulls = _nulls_name(message, each)
    if each.form is Form.ONE:
        values = reader.read(message, each)
        values = values if isinstance(values, list) else []
    else:
        values = reader.read_values(getattr(message, each.name), each.type)
    for place in getattr(message, nulls) if nulls is not None else ():
        if place < len(values):
            values[place] = None
    return values
