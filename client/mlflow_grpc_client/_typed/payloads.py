"""Records and rows in MLflow's payload formats, for typed calls.

Rule of this module: it takes parsed JSON apart and knows no types.
"""

from collections.abc import Collection
from typing import Any

_FORMATS = ("dataframe_split", "dataframe_records", "inputs", "instances")


class Keywords(dict[str, Any]):
    """Fields given by their names. A plain dict can be a value of the sole unnamed field instead."""


def rows_in(payload: Any, fields: Collection[str]) -> tuple[Any, bool]:
    """The record or rows in a payload, as a typed call takes them, and whether it is rows.

    A payload is a record, a list of rows, or a dict in one of MLflow's formats; a field with the name of a format wins
    over the format. Rows are dicts, or lists of values where there are no names. Raises ValueError if a format is
    malformed.
    """
    if not isinstance(payload, dict):
        return payload, isinstance(payload, list)
    formats = [name for name in _FORMATS if name in payload and name not in fields]
    if len(formats) != 1 or payload.keys() - {formats[0], "params"}:
        return {name: value for name, value in payload.items() if name != "params" or "params" in fields}, False
    name = formats[0]
    match name, payload[name]:
        case "dataframe_split", {"columns": list(labels), "data": list(rows)}:
            _check_widths(rows, len(labels))
            return [dict(zip(map(str, labels), row, strict=True)) for row in rows], True
        case "dataframe_split", {"data": list(rows)}:
            is_single_column = all(isinstance(row, list) and len(row) == 1 for row in rows)
            return ([row[0] for row in rows] if is_single_column else rows), True
        case (("dataframe_records" | "inputs" | "instances"), list(rows)):
            return rows, True
        case (("inputs" | "instances"), dict(columns)) if all(isinstance(column, list) for column in columns.values()):
            lengths = sorted({len(column) for column in columns.values()})
            if len(lengths) > 1:
                raise ValueError(
                    f"{name}: the columns have {', '.join(map(str, lengths))} values: give equal numbers of values"
                )
            return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)], True
    raise ValueError(f"{name}: it does not have the form that MLflow gives it")


def params_in(payload: Any, fields: Collection[str]) -> dict[str, Any] | None:
    """The params in a payload."""
    params = payload.get("params") if isinstance(payload, dict) and "params" not in fields else None
    return params if isinstance(params, dict) else None


def _check_widths(rows: list[Any], width: int) -> None:
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width:
            raise ValueError(f"dataframe_split.data[{index}]: it does not have {width} values, as there are columns")
