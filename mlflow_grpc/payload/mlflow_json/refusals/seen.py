"""What a caller sent in place of what the model takes: which names, or none, or no rows.

Rule of this module: it makes the words that hold the caller's own names, which are for the caller and not for the log.
"""

import difflib
import json
from collections.abc import Sequence
from typing import Any

from mlflow_grpc.payload.mlflow_json.refusals.tables import CsvTable, Table

MOST_NAMES, MOST_CHARACTERS = 8, 40
"""How many names are said, and how much of each."""


def names(found: Sequence[Any], known: Sequence[str]) -> str:
    """A sentence with the names of columns that were found and are none of the model's.

    Args:
        found: The names.
        known: Those of the model.

    """
    others = [str(name) for name in found if str(name) not in known]
    if not others:
        return ""
    said = ", ".join(_quoted(name, known) for name in others[:MOST_NAMES])
    more = f" and {len(others) - MOST_NAMES} more" if len(others) > MOST_NAMES else ""
    return f" Seen in its place: {said}{more}." if len(others) == 1 else f" Seen in their place: {said}{more}."


def keys(found: Sequence[str]) -> str:
    """A sentence with the keys of a payload."""
    if not found:
        return ""
    said = ", ".join(_quoted(name, ()) for name in found[:MOST_NAMES])
    more = f" and {len(found) - MOST_NAMES} more" if len(found) > MOST_NAMES else ""
    return f" Its keys are {said}{more}."


def _quoted(name: str, known: Sequence[str]) -> str:
    short = name if len(name) <= MOST_CHARACTERS else f"{name[:MOST_CHARACTERS]}…"
    close = difflib.get_close_matches(short, known, n=1)
    return f"{json.dumps(short, ensure_ascii=False)}{f' (did you mean {close[0]}?)' if close else ''}"


def of_none(table: Table) -> str | None:
    """What is said of a table that has none of the model's columns, or no rows; None of another one.

    Args:
        table: What was sent.

    """
    is_csv = table.format == CsvTable.format
    if not table.count:
        what = f"{'The CSV' if is_csv else table.format} has no rows: send one row at least."
        return f"{what} The first line of CSV is taken for the names of the columns." if is_csv else what
    if not any(table.has(column) for column in range(table.width)):
        what = f"None of the model's columns is in {'the CSV' if is_csv else table.format}"
        what += "." if table.seen else ", which has no names of columns."
        return f"{what} Its first line is taken for their names." if is_csv else what
    return None


def is_bare_record(payload: dict[str, Any], known: Sequence[str]) -> bool:
    """Whether the keys of a payload are columns of the model."""
    return any(name in payload for name in known)
