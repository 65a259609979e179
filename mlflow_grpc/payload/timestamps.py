"""Conversion of times of any library to seconds and nanoseconds since 1970, in UTC.

Rule of this module: a conversion is exact, or an error. Rules that the client needs too are in
`_mlflow_grpc_protocol.timestamps`.
"""

import datetime
import re
from typing import Any

import numpy as np
from _mlflow_grpc_protocol.timestamps import of_datetime, of_numpy

DIGITS, NANOS = 9, 10**9
_MIN_NUMPY_SECONDS, _MAX_NUMPY_SECONDS = -(2**63 // NANOS), 2**63 // NANOS - 1
"""The first and the last second of which 64 bits can count all nanoseconds."""


def seconds_and_nanos(value: Any) -> tuple[int, int]:
    """Converts a time to seconds since 1970 and additional nanoseconds. A time without a zone is in UTC.

    Args:
        value: A datetime, numpy.datetime64, pandas.Timestamp, or a text in ISO 8601.

    Raises:
        TypeError: The value has another type.
        ValueError: The value is not a time between the years 1 and 9999, or is finer than a nanosecond.
    """
    if hasattr(value, "to_datetime64"):
        # pandas refuses to round its first second down, and to subtract from it; numpy's integers have no such limit.
        value = value.to_datetime64()
    if isinstance(value, str):
        return _parse(value)
    if isinstance(value, np.datetime64):
        return of_numpy(value)
    if isinstance(value, datetime.datetime):
        return of_datetime(value)
    raise TypeError(f"a value of type {type(value).__name__}")


def column(seconds: list[int], nanos: list[int], nulls: list[int]) -> Any:
    """Converts a column of times to numpy's nanoseconds; None if a time is invalid or outside numpy's range.

    Args:
        seconds: Seconds since 1970.
        nanos: Additional nanoseconds.
        nulls: Indexes of null rows, which become NaT whatever is in the lists.
    """
    all_seconds, all_nanos = np.array(seconds, dtype=np.int64), np.array(nanos, dtype=np.int64)
    all_seconds[nulls] = all_nanos[nulls] = 0
    if all_seconds.min() < _MIN_NUMPY_SECONDS or all_seconds.max() > _MAX_NUMPY_SECONDS:
        return None
    if all_nanos.min() < 0 or all_nanos.max() >= NANOS:
        return None
    times = (all_seconds * NANOS + all_nanos).view("datetime64[ns]")
    times[nulls] = np.datetime64("NaT")
    return times


def _parse(text: str) -> tuple[int, int]:
    """Parses ISO 8601. The fraction is read separately, because datetime truncates it to microseconds."""
    fraction = re.search(r"(?<=:\d\d)[.,](\d+)", text)
    try:
        time = datetime.datetime.fromisoformat(text if fraction is None else text.replace(fraction[0], "", 1))
    except ValueError:
        raise ValueError("a text that is not a point in time") from None
    seconds, nanos = of_datetime(time)
    if fraction is None:
        return seconds, nanos
    if len(fraction[1]) > DIGITS:
        raise ValueError("a point in time that is finer than a nanosecond")
    return seconds, int(fraction[1].ljust(DIGITS, "0"))
