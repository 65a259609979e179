"""The rows in a payload of MLflow's, for calls of a model in its own types.

Rule of this module: it takes payloads apart as JSON has them, and knows nothing of types.
"""

from collections.abc import Collection
from typing import Any

_FORMATS = ("dataframe_split", "dataframe_records", "inputs", "instances")


class Keywords(dict[str, Any]):
    """Fields that were given by their names, and so are no value of a field without one."""


def rows_in(payload: Any, fields: Collection[str]) -> tuple[Any, bool]:
    """What a payload has, as a typed call takes it.

    Args:
        payload: A record, a list of rows, or a dict in one of MLflow's formats.
        fields: The names of the model's fields: one that is called as a format of MLflow's is a field.

    Returns:
        A record or a list of rows, and whether it is rows. Rows are dicts, or lists of values where they have no names.

    Raises:
        ValueError: It has a format of MLflow's and not the form of it.

    """
    if not isinstance(payload, dict):
        return payload, isinstance(payload, list)
    found = [name for name in _FORMATS if name in payload and name not in fields]
    if len(found) != 1 or payload.keys() - {found[0], "params"}:
        return {name: value for name, value in payload.items() if name != "params" or "params" in fields}, False
    content = payload[found[0]]
    match found[0], content:
        case "dataframe_split", {"columns": list(columns), "data": list(data)}:
            _check_rows(data, len(columns))
            return [dict(zip(map(str, columns), row, strict=True)) for row in data], True
        case "dataframe_split", {"data": list(data)}:
            is_one_column = all(isinstance(row, list) and len(row) == 1 for row in data)
            return ([row[0] for row in data] if is_one_column else data), True
        case (("dataframe_records" | "inputs" | "instances"), list(rows)):
            return rows, True
        case (("inputs" | "instances"), dict(columns)) if all(isinstance(each, list) for each in columns.values()):
            _check_rows([list(columns.values())], len(columns))
            sizes = {len(values) for values in columns.values()}
            if len(sizes) > 1:
                raise ValueError(
                    f"{found[0]}: the columns have {', '.join(map(str, sorted(sizes)))} values: give as many"
                )
            return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)], True
    raise ValueError(f"{found[0]}: it does not have the form that MLflow gives it")


def params_in(payload: Any, fields: Collection[str]) -> dict[str, Any] | None:
    """The params beside the rows of a payload."""
    params = payload.get("params") if isinstance(payload, dict) and "params" not in fields else None
    return params if isinstance(params, dict) else None


def _check_rows(rows: list[Any], width: int) -> None:
    for place, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width:
            raise ValueError(f"dataframe_split.data[{place}]: it does not have {width} values, as there are columns")
