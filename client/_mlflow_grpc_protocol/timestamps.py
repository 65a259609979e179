"""Times as seconds and nanoseconds since 1970, the fields of google.protobuf.Timestamp.

Rule of this module: exact, or an error. A time without a zone is in UTC. Texts of errors are noun phrases, which server
and client put into sentences.
"""

import datetime as dt
import re
import sys
from functools import lru_cache
from typing import Any

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
MIN_SECONDS, MAX_SECONDS = -62_135_596_800, 253_402_300_799
"""First second of the year 1 and last second of the year 9999: the range of a Timestamp."""
_MIN_MONTHS, _MAX_MONTHS = -1969 * 12, 8030 * 12 - 1
"""First and last month of the range of a Timestamp, in months since 1970."""
NUMPY_UNIT = re.compile(r"\[(\d*)([a-zA-Z]+)\]")
"""The unit in the name of a numpy time type, such as [25s]."""
_DIGITS = 9
_FRACTION = re.compile(r"(?<![+-]\d\d:\d\d)(?<![+-]\d\d:\d\d:\d\d)(?:(?<=:\d\d)|(?<=T\d{6}))[.,](\d+)")
"""The fraction of a second, after a time of day and not after the offset of a zone."""
_DATE_WITH_ZONE = re.compile(r"[\dW-]+[+-]\d\d:?\d\d")
_MONTHS_PER_UNIT = {"Y": 12, "M": 1}
_ATTOSECONDS_PER_UNIT = {
    "as": 1, "fs": 10**3, "ps": 10**6, "ns": 10**9, "us": 10**12, "ms": 10**15, "s": 10**18, "m": 60 * 10**18,
    "h": 3_600 * 10**18, "D": 86_400 * 10**18, "W": 604_800 * 10**18,
}  # fmt: skip


def seconds_and_nanos(value: Any) -> tuple[int, int]:
    """Seconds and nanoseconds of a datetime, numpy.datetime64, pandas.Timestamp, or a text in ISO 8601.

    Raises:
        TypeError: The value has another type.
        ValueError: The value is not a time between the years 1 and 9999, or is finer than a nanosecond.

    """
    if isinstance(value, str):
        return of_text(value)
    if hasattr(value, "to_datetime64"):
        # pandas refuses to round its first second down, and to subtract from it; numpy's integers have no such limit.
        value = value.to_datetime64()
    if isinstance(value, getattr(sys.modules.get("numpy"), "datetime64", ())):
        return of_numpy(value)
    if isinstance(value, dt.datetime):
        return of_datetime(value)
    raise TypeError(f"a value of type {type(value).__name__}")


def of_text(text: str) -> tuple[int, int]:
    """Seconds and nanoseconds of a text in ISO 8601, in the forms that Python's datetime knows.

    The fraction is read separately, because datetime truncates it to microseconds.

    Raises:
        ValueError: The text is not a time between the years 1 and 9999, or is finer than a nanosecond.

    """
    fraction = _FRACTION.search(text)
    iso = text if fraction is None else text[: fraction.start()] + text[fraction.end() :]
    time = _parsed(iso)
    if time is None:
        raise ValueError("a text that is not a point in time in ISO 8601")
    seconds, nanos = of_datetime(time)
    if fraction is None:
        return seconds, nanos
    if len(fraction[1]) > _DIGITS:
        raise ValueError("a point in time that is finer than a nanosecond")
    return seconds, int(fraction[1].ljust(_DIGITS, "0"))


def _parsed(text: str) -> dt.datetime | None:
    # Python takes any character between date and time, so it would take the zone of a date for a time of day.
    if _DATE_WITH_ZONE.fullmatch(text):
        return None
    try:
        return dt.datetime.fromisoformat(re.sub(r"(?<=:\d\d)Z$", "+00:00", text))  # Python 3.10 knows no Z.
    except ValueError:
        return None


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
