"""Cache of the parsed beginnings of payloads, because callers send the same column names with each call.

Rule of this module: it returns None unless the result is certain. A prefix ends where the rows of a `dataframe_split`
begin, and after the rows only two braces follow. The names in a prefix are therefore the same for each payload that
begins with the same characters, and only the rows need to be parsed.
"""

import re
from collections.abc import Callable
from typing import Any

import orjson

MAX_PREFIXES = 8
"""Maximum number of cached prefixes."""

MAX_PREFIX_CHARACTERS = 65_536
"""Maximum length of a cached prefix, in characters."""

_PREFIX = re.compile(r'\s*\{\s*"dataframe_split"\s*:\s*\{\s*"columns"\s*:\s*\[[^\[\]]*\]\s*,\s*"data"\s*:')
_SUFFIX = "}}"


class PrefixCache:
    """Prefixes of the `dataframe_split` payloads that were seen last; safe to use from any thread."""

    def __init__(self, column_indexes: Callable[[tuple[str, ...]], list[int] | None]) -> None:
        """Starts with no prefixes.

        Args:
            column_indexes: Returns the indexes of the signature's columns among names; None if the names differ.

        """
        self._column_indexes = column_indexes
        self._cached: dict[str, list[int]] = {}

    def split(self, text: str) -> tuple[list[int], Any] | None:
        """Returns the indexes of the columns in a row, and the rows as parsed; None if the prefix is not cached."""
        if text.endswith(_SUFFIX):
            for prefix, indexes in self._cached.items():
                if text.startswith(prefix):
                    try:
                        return indexes, orjson.loads(text[len(prefix) : -len(_SUFFIX)])
                    except orjson.JSONDecodeError:
                        return None
        return None

    def learn(self, text: str) -> None:
        """Caches the prefix of a payload, if later payloads may have the same one.

        A payload that ends differently is skipped. The next one of its caller will too, so that learning would cost
        more than it saves.
        """
        match = _PREFIX.match(text, 0, MAX_PREFIX_CHARACTERS) if text.endswith(_SUFFIX) else None
        if match is None:
            return
        try:
            names = orjson.loads(f"{match[0]}[]{_SUFFIX}")["dataframe_split"]["columns"]
        except orjson.JSONDecodeError:
            return
        if set(map(type, names)) == {str} and (indexes := self._column_indexes(tuple(names))) is not None:
            kept = list(self._cached.items())[1 - MAX_PREFIXES :]
            self._cached = {**dict(kept), match[0]: indexes}
