"""Objects of the client as HTML, for notebooks.

Rule of this module: everything that comes from a server is escaped and cut short, and no call is made for it.
"""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

MOST_ROWS = 30
"""Of a table."""
MOST_CHARACTERS = 200
"""Of a cell."""


def cell(value: Any) -> str:
    """A value as text in HTML."""
    text = str(value)
    return escape(text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}\u2026")


def facts(title: str, found: Mapping[str, Any]) -> str:
    """A title and a table of names and values; what is empty is left out."""
    rows = [(name, value) for name, value in found.items() if value not in ("", None, (), [])]
    return f"<b>{cell(title)}</b>{table((), rows)}"


def table(heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table; of many rows the first, and how many there are beside."""
    found = [list(row) for row in rows]
    made = [f"<tr>{''.join(f'<td>{cell(value)}</td>' for value in row)}</tr>" for row in found[:MOST_ROWS]]
    if len(found) > MOST_ROWS:
        made.append(f"<tr><td>and {len(found) - MOST_ROWS} more</td></tr>")
    head = "".join(f"<th>{cell(name)}</th>" for name in heads)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{''.join(made)}</table>"
