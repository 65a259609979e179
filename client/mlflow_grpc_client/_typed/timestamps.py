"""Conversion of times of Python, numpy and pandas to google.protobuf.Timestamp, and back.

Rule of this module: a time without a zone is in UTC, as the server reads it. Nanoseconds are exact.
"""

import datetime as dt
from collections.abc import Iterable
from typing import Any

from _mlflow_grpc_protocol import timestamps
from _mlflow_grpc_protocol.timestamps import MAX_SECONDS, MIN_SECONDS, NUMPY_UNIT
from google.protobuf.message import DecodeError

from mlflow_grpc_client._payloads import library, type_label

_UNITS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def seconds_and_nanos(value: Any, path: str) -> tuple[int, int]:
    """Converts a time to seconds since 1970 and additional nanoseconds.

    Times are a datetime, a date (its midnight), a numpy.datetime64, a pandas.Timestamp or a text in ISO 8601. Raises
    TypeError for others, and ValueError outside the years 1 to 9999 or finer than a nanosecond.
    """
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day, tzinfo=dt.timezone.utc)
    try:
        return timestamps.seconds_and_nanos(value)
    except TypeError:
        raise TypeError(f"{path}: {type_label(value)} is not a datetime") from None
    except ValueError as error:
        shown = repr(value) if isinstance(value, str) else value
        raise ValueError(f"{path}: {shown} is {error}") from None


def column_of(values: Any) -> tuple[Iterable[tuple[int, int]], list[int]] | None:
    """Seconds and nanoseconds of pandas' or numpy's times, and the indexes of NaT, where both are 0.

    None for anything else, and for times outside the years 1 to 9999, because `seconds_and_nanos` names the bad one.
    """
    dtype = getattr(values, "dtype", None)
    if getattr(dtype, "kind", "") != "M":
        return None
    if isinstance(values, library("pandas", "Series")):
        values = (values if getattr(dtype, "tz", None) is None else values.dt.tz_convert(None)).to_numpy()
    elif not isinstance(values, library("numpy", "ndarray")) or values.ndim != 1:
        return None
    (size, unit), *_ = NUMPY_UNIT.findall(values.dtype.str) or [("", "")]
    if size or unit not in _UNITS_PER_SECOND:
        return None
    is_nat = values != values  # noqa: PLR0124 - NaT
    counts = values.astype("int64")
    counts[is_nat] = 0
    seconds = counts // _UNITS_PER_SECOND[unit]
    if len(seconds) and not MIN_SECONDS <= int(seconds.min()) <= int(seconds.max()) <= MAX_SECONDS:
        return None
    nanos = (counts - seconds * _UNITS_PER_SECOND[unit]) * (10**9 // _UNITS_PER_SECOND[unit])
    return zip(seconds.tolist(), nanos.tolist(), strict=True), is_nat.nonzero()[0].tolist()


def extend(field: Any, points: Iterable[tuple[int, int]]) -> None:
    """Adds times to a repeated field of Timestamps."""
    for seconds, nanos in points:
        field.add(seconds=seconds, nanos=nanos)


def datetime_of(message: Any) -> dt.datetime:
    """Returns the datetime of a Timestamp in UTC, truncated to microseconds."""
    try:
        return timestamps.EPOCH + dt.timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
    except OverflowError:
        raise DecodeError("a point in time is not between the years 1 and 9999") from None
