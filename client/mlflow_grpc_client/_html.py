"""Objects of the client as HTML, for notebooks.

Rule of this module: text from a server is escaped and shortened, and no call is made.
"""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

MAX_ROWS = 30
"""Maximum rows of a table."""
MAX_CELL_CHARACTERS = 200
"""Maximum characters of a cell."""


def cell(value: Any) -> str:
    """A value as HTML text."""
    text = str(value)
    return escape(text if len(text) <= MAX_CELL_CHARACTERS else f"{text[: MAX_CELL_CHARACTERS - 1]}\u2026")


def facts(title: str, values: Mapping[str, Any]) -> str:
    """A title and a table of names and values, without empty values."""
    rows = [(name, value) for name, value in values.items() if value not in ("", None, (), [])]
    return f"<b>{cell(title)}</b>{table((), rows)}"


def table(heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table of the first rows, and the number of further rows."""
    cells = [list(row) for row in rows]
    lines = [f"<tr>{''.join(f'<td>{cell(value)}</td>' for value in row)}</tr>" for row in cells[:MAX_ROWS]]
    if len(cells) > MAX_ROWS:
        lines.append(f"<tr><td>and {len(cells) - MAX_ROWS} more</td></tr>")
    head = "".join(f"<th>{cell(name)}</th>" for name in heads)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{''.join(lines)}</table>"
