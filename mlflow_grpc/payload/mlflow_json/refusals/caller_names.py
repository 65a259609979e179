"""Sentences about the names in a payload that does not have the model's columns, or has no rows.

Rule of this module: its texts contain names that the caller chose, so they are for the caller and not for the log.
"""

import difflib
import json
from collections.abc import Sequence
from typing import Any

from mlflow_grpc.payload.mlflow_json.refusals.tables import CsvTable, Table

MAX_NAMES, MAX_CHARACTERS = 8, 40
"""Maximum number of names in a sentence, and of characters of each."""


def unknown_columns(labels: Sequence[Any], declared: Sequence[str]) -> str:
    """Returns a sentence with the columns that the model does not have; empty if there are none.

    Args:
        labels: Column labels in the payload.
        declared: Names of the model's columns.

    """
    unknown = [str(label) for label in labels if str(label) not in declared]
    if not unknown:
        return ""
    listed = ", ".join(_quoted(name, declared) for name in unknown[:MAX_NAMES])
    more = f" and {len(unknown) - MAX_NAMES} more" if len(unknown) > MAX_NAMES else ""
    return f" Seen in {'its' if len(unknown) == 1 else 'their'} place: {listed}{more}."


def keys(names: Sequence[str]) -> str:
    """Returns a sentence with the keys of a payload; empty if it has none."""
    if not names:
        return ""
    listed = ", ".join(_quoted(name, ()) for name in names[:MAX_NAMES])
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f" Its keys are {listed}{more}."


def _quoted(name: str, declared: Sequence[str]) -> str:
    short = name if len(name) <= MAX_CHARACTERS else f"{name[:MAX_CHARACTERS]}…"
    close = difflib.get_close_matches(short, declared, n=1)
    return f"{json.dumps(short, ensure_ascii=False)}{f' (did you mean {close[0]}?)' if close else ''}"


def emptiness(table: Table) -> str | None:
    """Returns a sentence about a table that has no rows or none of the model's columns; None for other tables."""
    is_csv = table.format == CsvTable.format
    if not table.count:
        what = f"{'The CSV' if is_csv else table.format} has no rows: send one row at least."
        return f"{what} The first line of CSV is taken for the names of the columns." if is_csv else what
    if not any(table.has(column) for column in range(table.width)):
        what = f"None of the model's columns is in {'the CSV' if is_csv else table.format}"
        what += "." if table.labels else ", which has no names of columns."
        return f"{what} Its first line is taken for their names." if is_csv else what
    return None


def is_csv(text: str, declared: Sequence[str]) -> bool:
    """Returns True if the first line of a text is a row of names in CSV, with one of a column of the model."""
    first = text.lstrip("\ufeff").partition("\n")[0].strip().replace('"', "").split(",")
    return any(name in first for name in declared)


def is_bare_record(payload: dict[str, Any], declared: Sequence[str]) -> bool:
    """Returns True if a payload has the name of a column of the model as a key."""
    return any(name in payload for name in declared)
