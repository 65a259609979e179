"""Points in time: google.protobuf.Timestamp and Python's datetimes.

Rule of this module: what has no zone is in UTC, as the server reads it.
"""

import datetime as dt
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from google.protobuf import timestamp_pb2
from google.protobuf.message import DecodeError

from mlflow_grpc_client._payloads import kind_of, library

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_SECOND = dt.timedelta(seconds=1)
_FIRST, _END = -62_135_596_800, 253_402_300_800
"""The first second of the years 1 to 9999, which a Timestamp has, and the one after the last."""
_FIRST_MONTH, _END_MONTH = -1969 * 12, 8030 * 12
"""The same in months since 1970."""
_UNIT = re.compile(r"\[(\d*)([a-zA-Z]+)\]")
"""Of one of numpy's times, in the name of its type."""
_MONTHS = {"Y": 12, "M": 1}
_ATTOS = {
    "as": 1, "fs": 10**3, "ps": 10**6, "ns": 10**9, "us": 10**12, "ms": 10**15, "s": 10**18, "m": 60 * 10**18,
    "h": 3_600 * 10**18, "D": 86_400 * 10**18, "W": 604_800 * 10**18,
}  # fmt: skip
_A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_TEXT = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d:\d\d(?:\.\d{1,9})?)(Z|[+-]\d\d:\d\d)?)?")


def seconds_and_nanos(value: Any, where: str) -> tuple[int, int]:
    """A point in time, counted from 1970.

    Args:
        value: A datetime, a date (its midnight), numpy's datetime64, pandas' Timestamp or a text in ISO 8601.
        where: What it is called in errors.

    Raises:
        TypeError: It is of another type.
        ValueError: A text is no point in time, or one is not of the years 1 to 9999, or finer than a nanosecond.

    """
    if isinstance(value, str):
        return _of_text(value, where)
    if isinstance(value, (dt.date, library("numpy", "datetime64"))) and value != value:  # noqa: PLR0124 - a NaT
        raise ValueError(f"{where}: NaT is no point in time")
    if isinstance(value, library("pandas", "Timestamp")):
        value = value.to_datetime64()
    if isinstance(value, library("numpy", "datetime64")):
        return _of_numpy(value, where)
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day, tzinfo=dt.timezone.utc)
    if not isinstance(value, dt.datetime):
        raise TypeError(f"{where}: {kind_of(value)} is not a datetime")
    if value.tzinfo is None:
        value = value.replace(tzinfo=dt.timezone.utc)
    seconds, rest = divmod(value - _EPOCH, _SECOND)
    return _within_years(seconds, where), rest.microseconds * 1000


@dataclass(frozen=True)
class Column:
    """Points in time in columns, counted from 1970."""

    seconds: Any
    nanos: Any
    missing: list[int]
    """The places of those that are NaT, in which the others are 0."""


def whole_column(values: Any) -> Column | None:
    """A column of pandas' or numpy's points in time, without an object for each.

    None if it is something else, or one of them is not of the years 1 to 9999: `seconds_and_nanos` says which one.
    """
    kind = getattr(values, "dtype", None)
    if getattr(kind, "kind", "") != "M":
        return None
    if isinstance(values, library("pandas", "Series")):
        values = (values if getattr(kind, "tz", None) is None else values.dt.tz_convert(None)).to_numpy()
    elif not isinstance(values, library("numpy", "ndarray")) or values.ndim != 1:
        return None
    found = _UNIT.findall(values.dtype.str)
    size, unit = found[0] if found else ("", "")
    if size or unit not in _A_SECOND:
        return None
    absent = values != values  # noqa: PLR0124 - NaT
    counts = values.astype("int64")
    counts[absent] = 0
    seconds = counts // _A_SECOND[unit]
    if len(seconds) and not _FIRST <= int(seconds.min()) <= int(seconds.max()) < _END:
        return None
    nanos = (counts - seconds * _A_SECOND[unit]) * (10**9 // _A_SECOND[unit])
    return Column(seconds, nanos, absent.nonzero()[0].tolist())


def extend(field: Any, column: Column) -> None:
    """Adds a column to a repeated field of Timestamps."""
    add = field.add
    for seconds, nanos in zip(column.seconds.tolist(), column.nanos.tolist(), strict=True):
        add(seconds=seconds, nanos=nanos)


def _of_numpy(value: Any, where: str) -> tuple[int, int]:
    """In Python's integers: numpy's would overflow, and cut off what is finer than the unit."""
    size, unit = _UNIT.findall(value.dtype.str)[0]
    count = int(value.astype("int64")) * int(size or 1)
    if unit in _MONTHS:
        if not _FIRST_MONTH <= count * _MONTHS[unit] < _END_MONTH:
            _refuse_year(where)
        count, unit = int(value.astype("datetime64[D]").astype("int64")), "D"
    nanos, rest = divmod(count * _ATTOS[unit], 10**9)
    seconds, nanos = divmod(nanos, 10**9)
    _within_years(seconds, where)
    if rest:
        raise ValueError(f"{where}: {value} is finer than a nanosecond, and a point in time has no more digits")
    return seconds, nanos


def _within_years(seconds: int, where: str) -> int:
    if not _FIRST <= seconds < _END:
        _refuse_year(where)
    return seconds


def _refuse_year(where: str) -> NoReturn:
    raise ValueError(f"{where}: a point in time is between the years 1 and 9999")


def _of_text(text: str, where: str) -> tuple[int, int]:
    found = _TEXT.fullmatch(text)
    if not found:
        raise ValueError(f"{where}: {text!r} is no point in time such as 2020-02-29T12:00:00Z")
    day, time, zone = found.groups()
    moment = timestamp_pb2.Timestamp()
    try:
        moment.FromJsonString(f"{day}T{time or '00:00:00'}{zone or 'Z'}")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return moment.seconds, moment.nanos


def datetime_of(message: Any) -> dt.datetime:
    """The datetime of a Timestamp, in UTC. A datetime has microseconds; what is finer is cut off.

    Raises:
        DecodeError: It is not between the years 1 and 9999.

    """
    try:
        return _EPOCH + dt.timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
    except OverflowError:
        raise DecodeError("a point in time is not between the years 1 and 9999") from None
