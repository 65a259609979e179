"""Times of Python, numpy and pandas as google.protobuf.Timestamp, and back.

Rule of this module: a time without a zone is in UTC, as the server reads it. Nanoseconds are exact.
"""

import datetime as dt
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from google.protobuf import timestamp_pb2
from google.protobuf.message import DecodeError

from mlflow_grpc_client._payloads import library, type_label

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
MIN_SECONDS, MAX_SECONDS = -62_135_596_800, 253_402_300_799
"""First second of the year 1 and last second of the year 9999: the range of a Timestamp."""
MIN_MONTHS, MAX_MONTHS = -1969 * 12, 8030 * 12 - 1
"""The same range in months since 1970."""
_NUMPY_UNIT = re.compile(r"\[(\d*)([a-zA-Z]+)\]")
"""The unit in the name of a numpy time type, such as [25s]."""
_MONTHS_PER_UNIT = {"Y": 12, "M": 1}
_ATTOSECONDS_PER_UNIT = {
    "as": 1, "fs": 10**3, "ps": 10**6, "ns": 10**9, "us": 10**12, "ms": 10**15, "s": 10**18, "m": 60 * 10**18,
    "h": 3_600 * 10**18, "D": 86_400 * 10**18, "W": 604_800 * 10**18,
}  # fmt: skip
_UNITS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_ISO_8601 = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d:\d\d(?:\.\d{1,9})?)(Z|[+-]\d\d:\d\d)?)?")


def seconds_and_nanos(value: Any, path: str) -> tuple[int, int]:
    """Seconds since 1970, and nanoseconds beyond.

    Args:
        value: A datetime, a date (its midnight), a numpy.datetime64, a pandas.Timestamp or a text in ISO 8601.
        path: The path of the field in error messages.

    Raises:
        TypeError: The value has another type.
        ValueError: A text is not ISO 8601, or the time is outside the years 1 to 9999 or finer than a nanosecond.

    """
    if isinstance(value, str):
        return _parse(value, path)
    if isinstance(value, (dt.date, library("numpy", "datetime64"))) and value != value:  # noqa: PLR0124 - NaT
        raise ValueError(f"{path}: NaT is no point in time")
    if isinstance(value, library("pandas", "Timestamp")):
        value = value.to_datetime64()
    if isinstance(value, library("numpy", "datetime64")):
        return _from_numpy(value, path)
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day, tzinfo=dt.timezone.utc)
    if not isinstance(value, dt.datetime):
        raise TypeError(f"{path}: {type_label(value)} is not a datetime")
    if value.tzinfo is None:
        value = value.replace(tzinfo=dt.timezone.utc)
    seconds, remainder = divmod(value - _EPOCH, dt.timedelta(seconds=1))
    return _check_range(seconds, path), remainder.microseconds * 1000


@dataclass(frozen=True)
class TimeColumn:
    """A column of times as arrays."""

    seconds: Any
    """Seconds since 1970."""
    nanos: Any
    missing: list[int]
    """Indexes of NaT, where seconds and nanos are 0."""


def column_of(values: Any) -> TimeColumn | None:
    """A column of pandas' or numpy's times, converted without an object for each time.

    None for anything else, and for times outside the years 1 to 9999, because `seconds_and_nanos` names the bad one.
    """
    dtype = getattr(values, "dtype", None)
    if getattr(dtype, "kind", "") != "M":
        return None
    if isinstance(values, library("pandas", "Series")):
        values = (values if getattr(dtype, "tz", None) is None else values.dt.tz_convert(None)).to_numpy()
    elif not isinstance(values, library("numpy", "ndarray")) or values.ndim != 1:
        return None
    (size, unit), *_ = _NUMPY_UNIT.findall(values.dtype.str) or [("", "")]
    if size or unit not in _UNITS_PER_SECOND:
        return None
    is_nat = values != values  # noqa: PLR0124 - NaT
    counts = values.astype("int64")
    counts[is_nat] = 0
    seconds = counts // _UNITS_PER_SECOND[unit]
    if len(seconds) and not MIN_SECONDS <= int(seconds.min()) <= int(seconds.max()) <= MAX_SECONDS:
        return None
    nanos = (counts - seconds * _UNITS_PER_SECOND[unit]) * (10**9 // _UNITS_PER_SECOND[unit])
    return TimeColumn(seconds, nanos, is_nat.nonzero()[0].tolist())


def extend(field: Any, column: TimeColumn) -> None:
    """Adds a column to a repeated field of Timestamps."""
    add = field.add
    for seconds, nanos in zip(column.seconds.tolist(), column.nanos.tolist(), strict=True):
        add(seconds=seconds, nanos=nanos)


def _from_numpy(value: Any, path: str) -> tuple[int, int]:
    """Counts in Python's integers, because numpy's overflow and drop what is finer than the unit."""
    size, unit = _NUMPY_UNIT.findall(value.dtype.str)[0]
    count = int(value.astype("int64")) * int(size or 1)
    if unit in _MONTHS_PER_UNIT:
        if not MIN_MONTHS <= count * _MONTHS_PER_UNIT[unit] <= MAX_MONTHS:
            _refuse_range(path)
        count, unit = int(value.astype("datetime64[D]").astype("int64")), "D"
    nanos, remainder = divmod(count * _ATTOSECONDS_PER_UNIT[unit], 10**9)
    seconds, nanos = divmod(nanos, 10**9)
    _check_range(seconds, path)
    if remainder:
        raise ValueError(f"{path}: {value} is finer than a nanosecond, and a point in time has no more digits")
    return seconds, nanos


def _check_range(seconds: int, path: str) -> int:
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        _refuse_range(path)
    return seconds


def _refuse_range(path: str) -> NoReturn:
    raise ValueError(f"{path}: a point in time is between the years 1 and 9999")


def _parse(text: str, path: str) -> tuple[int, int]:
    match = _ISO_8601.fullmatch(text)
    if not match:
        raise ValueError(f"{path}: {text!r} is no point in time such as 2020-02-29T12:00:00Z")
    day, time, zone = match.groups()
    timestamp = timestamp_pb2.Timestamp()
    try:
        timestamp.FromJsonString(f"{day}T{time or '00:00:00'}{zone or 'Z'}")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return timestamp.seconds, timestamp.nanos


def datetime_of(message: Any) -> dt.datetime:
    """The datetime of a Timestamp in UTC, cut to microseconds.

    Raises:
        DecodeError: The time is outside the years 1 to 9999.

    """
    try:
        return _EPOCH + dt.timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
    except OverflowError:
        raise DecodeError("a point in time is not between the years 1 and 9999") from None
