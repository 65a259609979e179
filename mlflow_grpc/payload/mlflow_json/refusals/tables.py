"""Payloads of MLflow's formats as tables: the value of a cell, its path, and payloads of some rows or columns.

Rule of this module: it reads and copies values, and judges none. A column is an index in the model's signature, in any
format. A value that is absent is ABSENT.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import pandas as pd
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array, Object

from mlflow_grpc.payload.codec import ABSENT
from mlflow_grpc.payload.mlflow_json.refusals.json_terms import step

Row = dict[int, Any]
"""Values of a row by column."""


class Table(Protocol):
    """Payload of one format."""

    count: int
    """Number of rows."""
    format: str
    """Name of the format for the caller."""
    width: int
    """Number of columns in the signature."""
    labels: list[Any]
    """Column labels in the payload; empty if it has none."""
    companion: ColSpec | None
    """Column that `payload` adds so that MLflow still reads the payload as one row; None if it needs none."""

    def has(self, column: int) -> bool:
        """Returns True if the payload has a column."""
        ...

    def cell(self, column: int, row: int) -> Any:
        """Returns the value of a cell."""
        ...

    def path(self, column: int, row: int) -> str:
        """Returns the path from the outer object of the payload to a cell."""
        ...

    def row_path(self, row: int) -> str:
        """Returns the path to a row."""
        ...

    def payload(self, rows: Sequence[Row]) -> Any:
        """Returns a payload of this format with other rows, all of the same columns; cells may be ABSENT."""
        ...


class SplitTable:
    """Value of `dataframe_split`."""

    format = "dataframe_split"
    companion: ColSpec | None = None

    def __init__(self, value: dict[str, Any], specs: Sequence[ColSpec | TensorSpec]) -> None:
        self._rows = [row if isinstance(row, list) else [row] for row in value["data"]]
        self.count = len(self._rows)
        self._names = [spec.name for spec in specs] if specs[0].name is not None else None
        width = max(map(len, self._rows)) if self._rows else len(value.get("columns") or ())
        labels = value.get("columns") or list(range(width))
        # MLflow's table has all columns of the same label; the last of them is reported.
        positions = {label: position for position, label in enumerate(labels)}
        self.labels, self.width = list(value.get("columns") or ()), len(specs)
        expected = self._names if self._names is not None else labels[: len(specs)]
        self._positions = {index: positions[label] for index, label in enumerate(expected) if label in positions}

    def has(self, column: int) -> bool:
        """Returns True if the label of a column is in `columns`."""
        return column in self._positions

    def cell(self, column: int, row: int) -> Any:
        """Returns an item of a row of `data`."""
        position = self._positions[column]
        return self._rows[row][position] if position < len(self._rows[row]) else ABSENT

    def path(self, column: int, row: int) -> str:
        """Returns a path such as `dataframe_split.data[3][1]`."""
        return f"{self.row_path(row)}[{self._positions[column]}]"

    def row_path(self, row: int) -> str:
        """Returns a path such as `dataframe_split.data[3]`."""
        return f"dataframe_split.data[{row}]"

    def payload(self, rows: Sequence[Row]) -> Any:
        """Returns `columns` with the names of the signature, and `data`."""
        columns = list(rows[0]) if rows else []
        data = [[None if cell is ABSENT else cell for cell in row.values()] for row in rows]
        return {"data": data} if self._names is None else {"columns": [self._names[i] for i in columns], "data": data}


class RecordsTable:
    """Array of objects: `dataframe_records`, `instances` or `inputs`."""

    companion: ColSpec | None = None

    def __init__(self, key: str, records: list[dict[str, Any]], specs: Sequence[ColSpec | TensorSpec]) -> None:
        self.format, self._records, self.width = key, records, len(specs)
        self._names = [str(spec.name) for spec in specs]
        self._present = dict.fromkeys(name for record in records for name in record)
        self.labels = list(self._present)
        self.count = len(records)

    def has(self, column: int) -> bool:
        """Returns True if an object has the column."""
        return self._names[column] in self._present

    def cell(self, column: int, row: int) -> Any:
        """Returns a value of an object."""
        return self._records[row].get(self._names[column], ABSENT)

    def path(self, column: int, row: int) -> str:
        """Returns a path such as `dataframe_records[3].weight`."""
        return f"{self.row_path(row)}{step(self._names[column])}"

    def row_path(self, row: int) -> str:
        """Returns a path such as `dataframe_records[3]`."""
        return f"{self.format}[{row}]"

    def payload(self, rows: Sequence[Row]) -> Any:
        """Returns an object for each row, without absent values."""
        return [{self._names[i]: cell for i, cell in row.items() if cell is not ABSENT} for row in rows]


class ColumnsTable:
    """Object of arrays: `inputs` or `instances`. It is one row if the signature has arrays or objects."""

    def __init__(self, key: str, columns: dict[str, Any], specs: Sequence[ColSpec | TensorSpec]) -> None:
        self.format, self._columns, self.labels, self.width = key, columns, list(columns), len(specs)
        self._names = [str(spec.name) for spec in specs]
        self.companion = _companion(specs)
        self._is_row = self.companion is not None or not all(isinstance(column, list) for column in columns.values())
        self.count = 1 if self._is_row else max(map(len, columns.values()), default=0)

    def has(self, column: int) -> bool:
        """Returns True if the name of a column is a key."""
        return self._names[column] in self._columns

    def cell(self, column: int, row: int) -> Any:
        """Returns an item of a column, or the whole column if the table is one row."""
        column_value = self._columns[self._names[column]]
        if self._is_row:
            return column_value
        return column_value[row] if row < len(column_value) else ABSENT

    def path(self, column: int, row: int) -> str:
        """Returns a path such as `inputs.weight[3]`, or `inputs.weight`."""
        return f"{self.format}{step(self._names[column])}" + ("" if self._is_row else f"[{row}]")

    def row_path(self, row: int) -> str:
        """Returns a path such as `inputs`."""
        return self.format

    def payload(self, rows: Sequence[Row]) -> Any:
        """Returns an object with a key for each column."""
        if self._is_row:
            companion = {self.companion.name: ["text"]} if self.companion is not None else {}
            return {self._names[i]: cell for i, cell in rows[0].items()} | companion
        columns = list(rows[0]) if rows else []
        return {self._names[i]: [row[i] for row in rows if row[i] is not ABSENT] for i in columns}


class ListTable:
    """Array of values of the only column, or of arrays with a value for each column: `inputs` or `instances`."""

    companion: ColSpec | None = None

    def __init__(self, key: str, items: list[Any], specs: Sequence[ColSpec | TensorSpec]) -> None:
        self.format, self._items, self.width = key, items, len(specs)
        self.labels: list[Any] = []
        is_array = len(specs) == 1 and isinstance(specs[0].type, Array)
        self._is_flat = len(specs) == 1 and (is_array or not any(isinstance(item, list) for item in items))
        self.count = len(items)
        self._width = 1 if self._is_flat else max((len(item) for item in items if isinstance(item, list)), default=0)

    def has(self, column: int) -> bool:
        """Returns True if a row is long enough for a column."""
        return column < self._width

    def cell(self, column: int, row: int) -> Any:
        """Returns an item, or an item of an item."""
        item = self._items[row]
        if self._is_flat or not isinstance(item, list):
            return item
        return item[column] if column < len(item) else ABSENT

    def path(self, column: int, row: int) -> str:
        """Returns a path such as `inputs[3]` or `inputs[3][1]`."""
        nested = not self._is_flat and isinstance(self._items[row], list)
        return f"{self.row_path(row)}[{column}]" if nested else self.row_path(row)

    def row_path(self, row: int) -> str:
        """Returns a path such as `inputs[3]`."""
        return f"{self.format}[{row}]"

    def payload(self, rows: Sequence[Row]) -> Any:
        """Returns an item for each row."""
        return [next(iter(row.values())) if self._is_flat else list(row.values()) for row in rows]


class BareTable:
    """Payload without a format, which is one row: the unified input of language models."""

    count = 1
    format = "a payload without a format"

    def __init__(self, payload: dict[str, Any], specs: Sequence[ColSpec | TensorSpec]) -> None:
        self._payload, self.labels, self.width = payload, list(payload), len(specs)
        self.companion = _companion(specs)
        self._names = [str(spec.name) for spec in specs]

    def has(self, column: int) -> bool:
        """Returns True if the name of a column is a key."""
        return self._names[column] in self._payload

    def cell(self, column: int, row: int) -> Any:
        """Returns the value of a key."""
        return self._payload[self._names[column]]

    def path(self, column: int, row: int) -> str:
        """Returns a path such as `temperature`."""
        return step(self._names[column]).lstrip(".")

    def row_path(self, row: int) -> str:
        """Returns the name of the payload itself, which is the row."""
        return "the payload"

    def payload(self, rows: Sequence[Row]) -> Any:
        """Returns an object with a key for each column."""
        companion = {self.companion.name: ["text"]} if self.companion is not None else {}
        return {self._names[i]: cell for i, cell in rows[0].items()} | companion


class CsvTable:
    """CSV table that pandas has read."""

    format = "CSV"
    companion: ColSpec | None = None

    def __init__(self, frame: pd.DataFrame, specs: Sequence[ColSpec | TensorSpec]) -> None:
        self._frame, self.labels, self.width = frame, list(frame.columns), len(specs)
        self._names = [str(spec.name) for spec in specs]
        self.count = len(frame)

    def has(self, column: int) -> bool:
        """Returns True if the name of a column is in the first line."""
        return self._names[column] in self._frame.columns

    def cell(self, column: int, row: int) -> Any:
        """Returns a cell in the type that pandas infers; None for an empty one."""
        value = self._frame[self._names[column]].iloc[row]
        return None if pd.isna(value) else getattr(value, "item", lambda: value)()

    def path(self, column: int, row: int) -> str:
        """Returns a path such as `row 3, column weight`."""
        return f"{self.row_path(row)}, column {self._names[column]}"

    def row_path(self, row: int) -> str:
        """Returns a path such as `row 3`, counted from 0 and without the line of names."""
        return f"row {row}"

    def payload(self, rows: Sequence[Row]) -> Any:
        """Returns CSV with the names of the signature in its first line."""
        columns = list(rows[0]) if rows else []
        names = [self._names[i] for i in columns]
        return pd.DataFrame([list(row.values()) for row in rows], columns=names, dtype=object).to_csv(index=False)


def _companion(specs: Sequence[ColSpec | TensorSpec]) -> ColSpec | None:
    """Returns a column that makes MLflow read an object as one row; None if the signature has no array or object."""
    has_nested = any(isinstance(spec.type, Array | Object) for spec in specs)
    return ColSpec(Array(DataType.string), f"{''.join(str(spec.name) for spec in specs)}_") if has_nested else None


def table_of(key: str, value: Any, schema: Schema) -> Table | None:
    """Returns the value of a format as a table; None if the value has no valid form of the format."""
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
