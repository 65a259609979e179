"""Texts for regular expressions, for the examples that people start from.

Rule of this module: it reads what Python's own parser makes of an expression. What it does not understand, such as a
reference to a group, gives no text.
"""

import importlib
import re
from typing import Any

# There is no public way to the parts of an expression.
_parser: Any = importlib.import_module("re._parser")
_constants: Any = importlib.import_module("re._constants")

_LETTERS = "aA0_- .,;:/@#$%&+*=!?'\"()[]{}<>|\\^~`\tbBcC123é"
"""What is tried where a set of characters leaves the choice."""
_MOST = 10_000
"""The characters of a repeated part."""
_CATEGORIES = {
    _constants.CATEGORY_DIGIT: "0",
    _constants.CATEGORY_NOT_DIGIT: "a",
    _constants.CATEGORY_SPACE: " ",
    _constants.CATEGORY_NOT_SPACE: "a",
    _constants.CATEGORY_WORD: "a",
    _constants.CATEGORY_NOT_WORD: "-",
}

_CLASSES = {
    _constants.CATEGORY_DIGIT: r"\d",
    _constants.CATEGORY_NOT_DIGIT: r"\D",
    _constants.CATEGORY_SPACE: r"\s",
    _constants.CATEGORY_NOT_SPACE: r"\S",
    _constants.CATEGORY_WORD: r"\w",
    _constants.CATEGORY_NOT_WORD: r"\W",
}


def text_for(pattern: str) -> str | None:
    """A short text in which a regular expression is found; None if none could be made."""
    try:
        made = "".join(map(_of, _parser.parse(pattern)))
        return made if re.search(pattern, made) else None
    except (re.error, ValueError, RecursionError, OverflowError):
        return None


def _of(part: tuple[Any, Any]) -> str:
    """A text for one part.

    Raises:
        ValueError: It is none of those that are known here.

    """
    kind, value = part
    match kind:
        case _constants.LITERAL:
            return chr(value)
        case _constants.NOT_LITERAL:
            return next(letter for letter in _LETTERS if ord(letter) != value)
        case _constants.ANY:
            return "a"
        case _constants.AT | _constants.ASSERT | _constants.ASSERT_NOT:  # Whether they hold is seen at the end.
            return ""
        case _constants.IN:
            return _of_set(value)
        case _constants.BRANCH:
            return "".join(map(_of, value[1][0]))
        case _constants.SUBPATTERN:
            return "".join(map(_of, value[-1]))
        case _constants.MAX_REPEAT | _constants.MIN_REPEAT | _constants.POSSESSIVE_REPEAT:
            least, most, repeated = value
            text, times = "".join(map(_of, repeated)), int(max(least, min(most, 1)))
            if len(text) * times > _MOST:
                raise ValueError("it would be too long")
            return text * times
    raise ValueError(f"{kind} is not known")


def _of_set(members: list[tuple[Any, Any]]) -> str:
    """A character of a set.

    Raises:
        ValueError: It is none of the common ones.

    """
    (first, value), *others = members
    if first is _constants.NEGATE:
        found = next((letter for letter in _LETTERS if not any(_has(member, letter) for member in others)), None)
        if found is None:
            raise ValueError("a set leaves no common letter")
        return found
    if first is _constants.RANGE:
        return chr(value[0])
    return str(_CATEGORIES[value]) if first is _constants.CATEGORY else chr(value)


def _has(member: tuple[Any, Any], letter: str) -> bool:
    """Whether a part of a set has a character."""
    kind, value = member
    if kind is _constants.RANGE:
        return bool(value[0] <= ord(letter) <= value[1])
    if kind is _constants.CATEGORY:
        return re.match(_CLASSES[value], letter) is not None
    return bool(ord(letter) == value)
