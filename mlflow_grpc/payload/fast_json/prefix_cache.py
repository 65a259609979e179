"""Payloads that begin as others before them did: callers send the same names with each call, and only the rows differ.

Rule of this module: it is certain or says None. A beginning is known if JSON goes on after it with the rows, and ends
after them with two brackets; then what was found of its names holds for each payload that begins with the same
characters, and only the rows have to be read.
"""

import re
from collections.abc import Callable
from typing import Any

import orjson

MOST = 8
"""How many beginnings are known at a time."""

MOST_CHARACTERS = 65_536
"""How long a beginning may be."""

_HEAD = re.compile(r'\s*\{\s*"dataframe_split"\s*:\s*\{\s*"columns"\s*:\s*\[[^\[\]]*\]\s*,\s*"data"\s*:')
_TAIL = "}}"


class Heads:
    """The beginnings of `dataframe_split` payloads that were seen last; used from any thread."""

    def __init__(self, places_of: Callable[[tuple[str, ...]], list[int] | None]) -> None:
        """Args:
        places_of: Finds the columns of the signature among names, None if they are others.
        """
        self._places_of = places_of
        self._known: dict[str, list[int]] = {}

    def split(self, text: str) -> tuple[list[int], Any] | None:
        """Where the columns are in a row, and the rows, whatever they are; None if the beginning is not known."""
        if text.endswith(_TAIL):
            for head, places in self._known.items():
                if text.startswith(head):
                    try:
                        return places, orjson.loads(text[len(head) : -len(_TAIL)])
                    except orjson.JSONDecodeError:
                        return None
        return None

    def learn(self, text: str) -> None:
        """Remembers how a payload begins, if others may begin so too.

        Not of one that ends in another way: its caller's next one does too, and learning costs more than it saves then.
        """
        found = _HEAD.match(text, 0, MOST_CHARACTERS) if text.endswith(_TAIL) else None
        if found is None:
            return
        try:
            names = orjson.loads(f"{found[0]}[]{_TAIL}")["dataframe_split"]["columns"]
        except orjson.JSONDecodeError:
            return
        if set(map(type, names)) == {str} and (places := self._places_of(tuple(names))) is not None:
            kept = list(self._known.items())[1 - MOST :]
            self._known = {**dict(kept), found[0]: places}
