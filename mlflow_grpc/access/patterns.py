"""Patterns of names in which `*` stands for any characters; every other character stands for itself."""

import re
from collections.abc import Iterable

Matcher = re.Pattern[str]


def matcher_of(pattern: str) -> Matcher:
    """Returns the regular expression of a pattern, for `fullmatch`."""
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def matches_any(matchers: Iterable[Matcher], name: str) -> bool:
    """Returns True if a name fits one of the patterns."""
    return any(matcher.fullmatch(name) for matcher in matchers)
