"""Points in time of any library as seconds and nanoseconds since 1970, in UTC.

Rule of this module: exactly, or not at all.
"""

import datetime
import re
from typing import Any

import numpy as np

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
FIRST_S, LAST_S = -62_135_596_800, 253_402_300_799
"""Of the years 1 and 9999: google.protobuf.Timestamp has no others."""

DIGITS, NANOS = 9, 10**9
_FIRST_OF_NUMPY_S, _LAST_OF_NUMPY_S = -(2**63 // NANOS), 2**63 // NANOS - 1
"""The first and the last second all of which is within 64 bits of nanoseconds."""
_A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": NANOS}


def seconds_and_nanos(value: Any) -> tuple[int, int]:
    """A point in time; one without a zone is in UTC.

    Args:
        value: Of the type datetime, numpy.datetime64 or pandas.Timestamp, or ISO 8601.

    Raises:
        TypeError: It is of another type.
        ValueError: It is no point in time between the years 1 and 9999, or not of whole nanoseconds.

    """
    if hasattr(value, "to_datetime64"):
        # pandas refuses to round its first second down, and to subtract from it: numpy's integers have no such end.
        value = value.to_datetime64()
    if isinstance(value, str):
        seconds, nanos = _of_text(value)
    elif isinstance(value, np.datetime64):
        seconds, nanos = _of_numpy(value)
    elif isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            value = value.replace(tzinfo=datetime.UTC)
        seconds, rest = divmod(value.replace(microsecond=0) - EPOCH, datetime.timedelta(seconds=1))
        nanos = value.microsecond * 1000 + rest.microseconds * 1000
    else:
        raise TypeError(f"a value of type {type(value).__name__}")
    if not FIRST_S <= seconds <= LAST_S:
        raise ValueError("a point in time that is not between the years 1 and 9999")
    return seconds, nanos


def column(seconds: list[int], nanos: list[int], nulls: list[int]) -> Any:
    """A column of points in time as numpy's nanoseconds; None if one is no point in time, or none that these have.

    Args:
        seconds: Since 1970.
        nanos: What is beyond the seconds.
        nulls: The places of those that are not there: they are NaT, whatever stands in the lists.

    """
    whole, rest = np.array(seconds, dtype=np.int64), np.array(nanos, dtype=np.int64)
    whole[nulls] = rest[nulls] = 0
    if whole.min() < _FIRST_OF_NUMPY_S or whole.max() > _LAST_OF_NUMPY_S or rest.min() < 0 or rest.max() >= NANOS:
        return None
    found = (whole * NANOS + rest).view("datetime64[ns]")
    found[nulls] = np.datetime64("NaT")
    return found


def _of_text(text: str) -> tuple[int, int]:
    """ISO 8601. What is less than a microsecond is read apart, since datetime cuts it off."""
    fraction = re.search(r"(?<=:\d\d)[.,](\d+)", text)
    try:
        found = datetime.datetime.fromisoformat(text if fraction is None else text.replace(fraction[0], "", 1))
    except ValueError:
        raise ValueError("a text that is no point in time") from None
    seconds, nanos = seconds_and_nanos(found)
    if fraction is None:
        return seconds, nanos
    if len(fraction[1]) > DIGITS:
        raise ValueError("a point in time that is not of whole nanoseconds")
    return seconds, int(fraction[1].ljust(DIGITS, "0"))


def _of_numpy(value: np.datetime64) -> tuple[int, int]:
    if np.isnat(value):
        raise ValueError("no point in time (NaT)")
    unit, count = np.datetime_data(value.dtype)
    if unit not in _A_SECOND:
        whole = value.astype("datetime64[s]")
        if unit in ("ps", "fs", "as") and whole.astype(value.dtype) != value:
            raise ValueError("a point in time that is not of whole nanoseconds")
        return int(whole.astype(np.int64)), 0
    seconds, rest = divmod(int(value.astype(np.int64)) * count, _A_SECOND[unit])
    return seconds, rest * (NANOS // _A_SECOND[unit])
