"""Payloads of MLflow's formats as rows and columns: what stands at a place, what that place is called, parts of them.

Rule of this module: it moves values and judges none. Columns are counted as in the model's signature, whatever order
the payload has; a value that is not there is ABSENT.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import pandas as pd
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array, Object

from mlflow_grpc.payload.codec import ABSENT
from mlflow_grpc.payload.mlflow_json.refusals.json_terms import step

Row = dict[int, Any]
"""The values of a row, by their columns."""


class Table(Protocol):
    """A payload of one format."""

    count: int
    """How many rows it has."""
    format: str
    """What the caller calls the format."""
    width: int
    """How many columns the model takes."""
    seen: list[Any]
    """The names that the payload has for columns; none if it has no names."""
    companion: ColSpec | None
    """A column that `payload` adds, without which MLflow would read the others in another way."""

    def has(self, column: int) -> bool:
        """Whether a column is there at all."""
        ...

    def cell(self, column: int, row: int) -> Any:
        """What stands at a place."""
        ...

    def path(self, column: int, row: int) -> str:
        """The way from the outer object of the payload to a place."""
        ...

    def row_path(self, row: int) -> str:
        """The way to a row."""
        ...

    def payload(self, rows: Sequence[Row]) -> Any:
        """A payload of this format with other rows, which all have the same columns but for what is ABSENT."""
        ...


class SplitTable:
    """The value of `dataframe_split`."""

    format = "dataframe_split"
    companion: ColSpec | None = None

    def __init__(self, value: dict[str, Any], specs: Sequence[ColSpec | TensorSpec]) -> None:
        self._rows = [row if isinstance(row, list) else [row] for row in value["data"]]
        self.count = len(self._rows)
        self._names = [spec.name for spec in specs] if specs[0].name is not None else None
        width = max(map(len, self._rows)) if self._rows else len(value.get("columns") or ())
        labels = value.get("columns") or list(range(width))
        # Of columns of one name MLflow's table has both; the last one is as good as the other to name.
        positions = {label: position for position, label in enumerate(labels)}
        self.seen, self.width = list(value.get("columns") or ()), len(specs)
        sought = self._names if self._names is not None else labels[: len(specs)]
        self._positions = {index: positions[label] for index, label in enumerate(sought) if label in positions}

    def has(self, column: int) -> bool:
        """Whether its label is among `columns`."""
        return column in self._positions

    def cell(self, column: int, row: int) -> Any:
        """An item of a row of `data`."""
        position = self._positions[column]
        return self._rows[row][position] if position < len(self._rows[row]) else ABSENT

    def path(self, column: int, row: int) -> str:
        """As `dataframe_split.data[3][1]`."""
        return f"{self.row_path(row)}[{self._positions[column]}]"

    def row_path(self, row: int) -> str:
        """As `dataframe_split.data[3]`."""
        return f"dataframe_split.data[{row}]"

    def payload(self, rows: Sequence[Row]) -> Any:
        """With the labels of the signature."""
        columns = list(rows[0]) if rows else []
        data = [[None if cell is ABSENT else cell for cell in row.values()] for row in rows]
        return {"data": data} if self._names is None else {"columns": [self._names[i] for i in columns], "data": data}


class RecordsTable:
    """An array of objects: `dataframe_records`, `instances` or `inputs`."""

    companion: ColSpec | None = None

    def __init__(self, key: str, records: list[dict[str, Any]], specs: Sequence[ColSpec | TensorSpec]) -> None:
        self.format, self._records, self.width = key, records, len(specs)
        self._names = [str(spec.name) for spec in specs]
        self._present = dict.fromkeys(name for record in records for name in record)
        self.seen = list(self._present)
        self.count = len(records)

    def has(self, column: int) -> bool:
        """Whether any object has it."""
        return self._names[column] in self._present

    def cell(self, column: int, row: int) -> Any:
        """A value of an object."""
        return self._records[row].get(self._names[column], ABSENT)

    def path(self, column: int, row: int) -> str:
        """As `dataframe_records[3].weight`."""
        return f"{self.row_path(row)}{step(self._names[column])}"

    def row_path(self, row: int) -> str:
        """As `dataframe_records[3]`."""
        return f"{self.format}[{row}]"

    def payload(self, rows: Sequence[Row]) -> Any:
        """An object a row, without what is ABSENT."""
        return [{self._names[i]: cell for i, cell in row.items() if cell is not ABSENT} for row in rows]


class ColumnsTable:
    """An object of arrays: `inputs` or `instances`. With arrays or objects in the signature it is one row."""

    def __init__(self, key: str, columns: dict[str, Any], specs: Sequence[ColSpec | TensorSpec]) -> None:
        self.format, self._columns, self.seen, self.width = key, columns, list(columns), len(specs)
        self._names = [str(spec.name) for spec in specs]
        self.companion = _companion(specs)
        self._is_row = self.companion is not None or not all(isinstance(column, list) for column in columns.values())
        self.count = 1 if self._is_row else max(map(len, columns.values()), default=0)

    def has(self, column: int) -> bool:
        """Whether its name is a key."""
        return self._names[column] in self._columns

    def cell(self, column: int, row: int) -> Any:
        """An item of a column, or all of it."""
        column_value = self._columns[self._names[column]]
        if self._is_row:
            return column_value
        return column_value[row] if row < len(column_value) else ABSENT

    def path(self, column: int, row: int) -> str:
        """As `inputs.weight[3]`, or `inputs.weight`."""
        return f"{self.format}{step(self._names[column])}" + ("" if self._is_row else f"[{row}]")

    def row_path(self, row: int) -> str:
        """As `inputs`."""
        return self.format

    def payload(self, rows: Sequence[Row]) -> Any:
        """A key a column."""
        if self._is_row:
            beside = {self.companion.name: ["text"]} if self.companion is not None else {}
            return {self._names[i]: cell for i, cell in rows[0].items()} | beside
        columns = list(rows[0]) if rows else []
        return {self._names[i]: [row[i] for row in rows if row[i] is not ABSENT] for i in columns}


class ListTable:
    """An array of values of the only column, or of arrays with a value for each column: `inputs` or `instances`."""

    companion: ColSpec | None = None

    def __init__(self, key: str, items: list[Any], specs: Sequence[ColSpec | TensorSpec]) -> None:
        self.format, self._items, self.width = key, items, len(specs)
        self.seen: list[Any] = []
        self._is_flat = len(specs) == 1 and not any(isinstance(item, list) for item in items)
        self.count = len(items)
        self._width = 1 if self._is_flat else max((len(item) for item in items if isinstance(item, list)), default=0)

    def has(self, column: int) -> bool:
        """Whether the rows are so long."""
        return column < self._width

    def cell(self, column: int, row: int) -> Any:
        """An item, or an item of an item."""
        item = self._items[row]
        if self._is_flat or not isinstance(item, list):
            return item
        return item[column] if column < len(item) else ABSENT

    def path(self, column: int, row: int) -> str:
        """As `inputs[3]` or `inputs[3][1]`."""
        nested = not self._is_flat and isinstance(self._items[row], list)
        return f"{self.row_path(row)}[{column}]" if nested else self.row_path(row)

    def row_path(self, row: int) -> str:
        """As `inputs[3]`."""
        return f"{self.format}[{row}]"

    def payload(self, rows: Sequence[Row]) -> Any:
        """An item a row."""
        return [next(iter(row.values())) if self._is_flat else list(row.values()) for row in rows]


class BareTable:
    """A payload without a format, which is one row: the unified input of language models."""

    count = 1
    format = "a payload without a format"

    def __init__(self, payload: dict[str, Any], specs: Sequence[ColSpec | TensorSpec]) -> None:
        self._payload, self.seen, self.width = payload, list(payload), len(specs)
        self.companion = _companion(specs)
        self._names = [str(spec.name) for spec in specs]

    def has(self, column: int) -> bool:
        """Whether its name is a key."""
        return self._names[column] in self._payload

    def cell(self, column: int, row: int) -> Any:
        """The value of a key."""
        return self._payload[self._names[column]]

    def path(self, column: int, row: int) -> str:
        """As `temperature`."""
        return step(self._names[column]).lstrip(".")

    def row_path(self, row: int) -> str:
        """The payload itself."""
        return "the payload"

    def payload(self, rows: Sequence[Row]) -> Any:
        """A key a column."""
        beside = {self.companion.name: ["text"]} if self.companion is not None else {}
        return {self._names[i]: cell for i, cell in rows[0].items()} | beside


class CsvTable:
    """A table that pandas has read."""

    format = "CSV"
    companion: ColSpec | None = None

    def __init__(self, frame: pd.DataFrame, specs: Sequence[ColSpec | TensorSpec]) -> None:
        self._frame, self.seen, self.width = frame, list(frame.columns), len(specs)
        self._names = [str(spec.name) for spec in specs]
        self.count = len(frame)

    def has(self, column: int) -> bool:
        """Whether its name is in the first line."""
        return self._names[column] in self._frame.columns

    def cell(self, column: int, row: int) -> Any:
        """A cell as pandas takes it if it is told no type; None for one that is empty."""
        value = self._frame[self._names[column]].iloc[row]
        return None if pd.isna(value) else getattr(value, "item", lambda: value)()

    def path(self, column: int, row: int) -> str:
        """As `row 3, column weight`."""
        return f"{self.row_path(row)}, column {self._names[column]}"

    def row_path(self, row: int) -> str:
        """As `row 3`, counted from 0 and without the line of names."""
        return f"row {row}"

    def payload(self, rows: Sequence[Row]) -> Any:
        """CSV with the names of the signature."""
        columns = list(rows[0]) if rows else []
        names = [self._names[i] for i in columns]
        return pd.DataFrame([list(row.values()) for row in rows], columns=names, dtype=object).to_csv(index=False)


def _companion(specs: Sequence[ColSpec | TensorSpec]) -> ColSpec | None:
    """A column of a type with which MLflow takes an object for one row; None if the signature has none such."""
    has_nested = any(isinstance(spec.type, Array | Object) for spec in specs)
    return ColSpec(Array(DataType.string), f"{''.join(str(spec.name) for spec in specs)}_") if has_nested else None


def table_of(key: str, value: Any, schema: Schema) -> Table | None:
    """The value of a format as a table; None if it has none of the forms that the format may have."""
    specs, has_names = schema.inputs, schema.has_input_names()
    if key == "dataframe_split":
        return SplitTable(value, specs) if isinstance(value.get("data"), list) else None
    if isinstance(value, list) and value and all(isinstance(record, dict) for record in value):
        return RecordsTable(key, value, specs) if has_names else None
    if key == "dataframe_records":
        return None if has_names or not isinstance(value, list) else ListTable(key, value, specs)
    if isinstance(value, dict):
        return ColumnsTable(key, value, specs) if has_names else None
    is_listed = isinstance(value, list) and (len(specs) == 1 or all(isinstance(item, list) for item in value))
    return ListTable(key, value, specs) if is_listed and (len(specs) == 1 or not has_names) else None
