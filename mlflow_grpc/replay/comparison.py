"""What differs between two answers.

Rule of this module: two answers are the same if they have the same JSON, whatever its spaces and the order of its keys.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

MAX_CHARACTERS = 80
"""Maximum length of a value that is shown."""


class Deviation(NamedTuple):
    """One value that differs."""

    path: str
    """Where it is, such as `predictions[3].score`; empty for the answer itself."""
    recorded: Any
    replayed: Any


@dataclass(frozen=True, slots=True)
class Difference:
    """The values of two answers that differ."""

    count: int
    """Number of values that differ, or that only one answer has."""
    first: str
    """The first of them: where it is, and both values; empty if there is none."""
    largest: float | None
    """Largest absolute difference of two numbers; None if no numbers differ."""


SAME = Difference(0, "", None)


def difference(recorded: str | None, replayed: str | None, tolerance: float = 0.0) -> Difference:
    """Returns the difference between two answers.

    Args:
        recorded: The recorded answer; None if there was none.
        replayed: The answer of now; None if there is none.
        tolerance: Relative and absolute difference up to which two numbers are the same.

    """
    if recorded == replayed:
        return SAME
    deviations = list(_deviations(_parsed(recorded), _parsed(replayed), "", tolerance))
    if not deviations:
        return SAME
    first = deviations[0]
    numbers = [
        abs(item.recorded - item.replayed)
        for item in deviations
        if _is_number(item.recorded) and _is_number(item.replayed)
    ]
    where = f"{first.path}: " if first.path else ""
    text = f"{where}{_shown(first.recorded)} is now {_shown(first.replayed)}"
    return Difference(len(deviations), text, max(numbers, default=None))


class _Absent:
    """A value that only the other answer has."""


ABSENT = _Absent()


def _parsed(answer: str | None) -> Any:
    """Returns the value of JSON; a text that is no JSON is its own value."""
    if answer is None:
        return ABSENT
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        return answer


def _deviations(recorded: Any, replayed: Any, path: str, tolerance: float) -> Iterator[Deviation]:
    if isinstance(recorded, dict) and isinstance(replayed, dict):
        for key in dict.fromkeys((*recorded, *replayed)):
            name = f"{path}.{key}" if path else key
            yield from _deviations(recorded.get(key, ABSENT), replayed.get(key, ABSENT), name, tolerance)
    elif isinstance(recorded, list) and isinstance(replayed, list):
        for index in range(max(len(recorded), len(replayed))):
            before, now = (values[index] if index < len(values) else ABSENT for values in (recorded, replayed))
            yield from _deviations(before, now, f"{path}[{index}]", tolerance)
    elif not _is_same(recorded, replayed, tolerance):
        yield Deviation(path, recorded, replayed)


def _is_same(recorded: Any, replayed: Any, tolerance: float) -> bool:
    if _is_number(recorded) and _is_number(replayed):
        is_nan = math.isnan(recorded) and math.isnan(replayed)
        return is_nan or recorded == replayed or math.isclose(recorded, replayed, rel_tol=tolerance, abs_tol=tolerance)
    return type(recorded) is type(replayed) and bool(recorded == replayed)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    if value is ABSENT:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 3]}..."
