"""Strings that match regular expressions, for the examples that people start from.

Rule of this module: it reads the parse tree that Python's own parser makes. An expression with an unknown node, such as
a reference to a group, gives no string.
"""

import importlib
import re
from typing import Any

# Python has no public API for the parse tree of an expression.
_parser: Any = importlib.import_module("re._parser")
_constants: Any = importlib.import_module("re._constants")

Node = tuple[Any, Any]
"""A node of a parse tree: its opcode, and its arguments."""

_CHARACTERS = "aA0_- .,;:/@#$%&+*=!?'\"()[]{}<>|\\^~`\tbBcC123é"
"""Candidates for a set of characters, in the order of preference."""
_MAX_REPEATED_CHARACTERS = 10_000
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


def matching_text(pattern: str) -> str | None:
    """Makes a short string in which `re.search` finds a pattern; None if that fails."""
    try:
        text = "".join(map(_node_text, _parser.parse(pattern)))
        return text if re.search(pattern, text) else None
    except (re.error, ValueError, RecursionError, OverflowError):
        return None


def _node_text(node: Node) -> str:
    """A string for a node.

    Raises:
        ValueError: The opcode is unknown here, or the string would be too long.

    """
    opcode, value = node
    match opcode:
        case _constants.LITERAL:
            return chr(value)
        case _constants.NOT_LITERAL:
            return next(character for character in _CHARACTERS if ord(character) != value)
        case _constants.ANY:
            return "a"
        case _constants.AT | _constants.ASSERT | _constants.ASSERT_NOT:  # The final search checks these.
            return ""
        case _constants.IN:
            return _set_text(value)
        case _constants.BRANCH:
            return "".join(map(_node_text, value[1][0]))
        case _constants.SUBPATTERN:
            return "".join(map(_node_text, value[-1]))
        case _constants.MAX_REPEAT | _constants.MIN_REPEAT | _constants.POSSESSIVE_REPEAT:
            minimum, maximum, repeated = value
            text, times = "".join(map(_node_text, repeated)), int(max(minimum, min(maximum, 1)))
            if len(text) * times > _MAX_REPEATED_CHARACTERS:
                raise ValueError("it would be too long")
            return text * times
    raise ValueError(f"{opcode} is not known")


def _set_text(members: list[Node]) -> str:
    """A character of a set.

    Raises:
        ValueError: No common character is in the set.

    """
    (opcode, value), *excluded = members
    if opcode is _constants.NEGATE:
        for character in _CHARACTERS:
            if not any(_contains(member, character) for member in excluded):
                return character
        raise ValueError("a set leaves no common letter")
    if opcode is _constants.RANGE:
        return chr(value[0])
    return _CATEGORIES[value] if opcode is _constants.CATEGORY else chr(value)


def _contains(member: Node, character: str) -> bool:
    """Returns True if a member of a set includes a character."""
    opcode, value = member
    if opcode is _constants.RANGE:
        return bool(value[0] <= ord(character) <= value[1])
    if opcode is _constants.CATEGORY:
        return re.match(_CLASSES[value], character) is not None
    return bool(ord(character) == value)
