"""Times as seconds and nanoseconds since 1970, the fields of google.protobuf.Timestamp.

Rule of this module: exact, or an error. A time without a zone is in UTC. Texts of errors are noun phrases, which server
and client put into sentences.
"""

import datetime as dt
import re
from functools import lru_cache
from typing import Any

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
MIN_SECONDS, MAX_SECONDS = -62_135_596_800, 253_402_300_799
"""First second of the year 1 and last second of the year 9999: the range of a Timestamp."""
_MIN_MONTHS, _MAX_MONTHS = -1969 * 12, 8030 * 12 - 1
"""First and last month of the range of a Timestamp, in months since 1970."""
NUMPY_UNIT = re.compile(r"\[(\d*)([a-zA-Z]+)\]")
"""The unit in the name of a numpy time type, such as [25s]."""
_MONTHS_PER_UNIT = {"Y": 12, "M": 1}
_ATTOSECONDS_PER_UNIT = {
    "as": 1, "fs": 10**3, "ps": 10**6, "ns": 10**9, "us": 10**12, "ms": 10**15, "s": 10**18, "m": 60 * 10**18,
    "h": 3_600 * 10**18, "D": 86_400 * 10**18, "W": 604_800 * 10**18,
}  # fmt: skip


def of_datetime(value: dt.datetime) -> tuple[int, int]:
    """Seconds and nanoseconds of a datetime.

    Raises:
        ValueError: The time is outside the years 1 to 9999.

    """
    if value.tzinfo is None:
        value = value.replace(tzinfo=dt.timezone.utc)
    seconds, remainder = divmod(value - EPOCH, dt.timedelta(seconds=1))
    return _checked(seconds), remainder.microseconds * 1000


def of_numpy(value: Any) -> tuple[int, int]:
    """Seconds and nanoseconds of a numpy.datetime64.

    The counts are Python's integers, because numpy's overflow and drop digits beyond the unit.

    Raises:
        ValueError: The value is NaT, or the time is outside the years 1 to 9999 or finer than a nanosecond.

    """
    if value != value:  # noqa: PLR0124 - NaT
        raise ValueError("no point in time")
    size, unit = _size_and_unit(value.dtype.str)
    count = int(value.astype("int64")) * size
    if unit in _MONTHS_PER_UNIT:
        if not _MIN_MONTHS <= count * _MONTHS_PER_UNIT[unit] <= _MAX_MONTHS:
            _checked(MAX_SECONDS + 1)
        count, unit = int(value.astype("datetime64[D]").astype("int64")), "D"
    nanos, remainder = divmod(count * _ATTOSECONDS_PER_UNIT[unit], 10**9)
    seconds, nanos = divmod(nanos, 10**9)
    _checked(seconds)
    if remainder:
        raise ValueError("a point in time that is finer than a nanosecond")
    return seconds, nanos


@lru_cache(maxsize=100)
def _size_and_unit(type_name: str) -> tuple[int, str]:
    size, unit = NUMPY_UNIT.findall(type_name)[0]
    return int(size or 1), unit


def _checked(seconds: int) -> int:
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise ValueError("a point in time that is not between the years 1 and 9999")
    return seconds
