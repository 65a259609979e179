"""Faults of the columns of a table that MLflow refuses, each with a row and the value in it.

Rule of this module: MLflow judges. It checks the table again with fewer columns, then with fewer rows, until a column
or a cell is refused by itself. The number of checks is limited, because each parses a section of the payload.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from mlflow.types import ColSpec, DataType, Schema

from mlflow_grpc.errors import FieldViolation
from mlflow_grpc.payload.codec import ABSENT
from mlflow_grpc.payload.mlflow_json.refusals import json_terms, value_faults
from mlflow_grpc.payload.mlflow_json.refusals.tables import ColumnsTable, CsvTable, Row, Table

MAX_PROBES = 96
"""Maximum number of checks by MLflow for one refused payload."""

MAX_COLUMN_PROBES = 64
"""Maximum number of these that search for columns; the remaining ones search for rows and try examples."""

MAX_COLUMNS = 16
"""Maximum number of columns that are reported."""

MAX_SAMPLE = 256
"""Maximum number of rows in the sample that is checked first."""

MAX_CELLS = 200_000
"""Maximum size of a table that is checked with all rows, because MLflow reads it several times."""

MAX_IN_A_CELL = 4
"""Maximum number of faults that are reported for one cell."""

MAX_VALUES = 1000
"""Maximum number of values of a column that are read to list its JSON types."""

Probe = Callable[[Any, Schema], None]
"""Parses and enforces a payload of the table's format for a schema; raises MLflow's exceptions."""

Path = Callable[[str, int, str], str]
"""Returns the path for the caller, from a column's label (empty for a whole row), the row and the payload's path."""


class ColumnFaults:
    """Search for the faults of one table."""

    def __init__(self, table: Table, schema: Schema, probe: Probe, path: Path, elsewhere: Probe | None = None) -> None:
        """Prepares a search that has run no checks yet.

        Args:
            table: The payload.
            schema: The model's input schema.
            probe: Checks a payload of the table's format with MLflow.
            path: Returns the path of a cell for the caller.
            elsewhere: Checks `dataframe_records` with MLflow; None if the table's format accepts the same values.

        """
        self._elsewhere = elsewhere
        self._table = table
        self._specs: list[Any] = list(schema.inputs)
        self._probe = probe
        self._path = path
        self._probes_left = MAX_PROBES

    def violations(self) -> list[FieldViolation]:
        """Returns the columns at fault, each with the first refused row.

        A sample of the rows is checked first, because it shows most faults. All rows are checked only if it shows none.
        """
        missing = [
            self._violation(index, self._missing(spec))
            for index, spec in enumerate(self._specs)
            if spec.required and not self._table.has(index)
        ]
        sample = self._sample()
        refused = self._in_rows(sample)
        if not refused and not missing and len(sample) < self._table.count <= MAX_CELLS // len(self._specs):
            refused = self._in_rows(range(self._table.count))
        return missing + refused

    def _in_rows(self, rows: Sequence[int]) -> list[FieldViolation]:
        return [
            self._violation(index, description)
            for index in self._refused_columns(rows)
            for description in self._descriptions(index, rows)
        ]

    def _sample(self) -> list[int]:
        """Returns the first row of each group of cells that MLflow accepts or refuses alike."""
        rows: set[int] = set()
        for index, spec in enumerate(self._specs):
            seen: set[Any] = set()
            is_type_enough = not _is_one_of(spec.type, _TYPES_BY_VALUE)
            for row in range(self._table.count if self._table.has(index) else 0):
                cell = self._table.cell(index, row)
                # The type alone is enough for most cells, of which there may be millions.
                likeness: Any = type(cell)
                if likeness in (list, dict) or not (is_type_enough or likeness in (float, bool)):
                    likeness = _likeness(cell, spec.type)
                if likeness not in seen:
                    seen.add(likeness)
                    rows.add(row)
        return sorted(rows)[:MAX_SAMPLE]

    def _violation(self, index: int, description: str) -> FieldViolation:
        spec = self._specs[index]
        if spec.name is not None:
            return FieldViolation(str(spec.name), description)
        return FieldViolation(str(index), f"column {index}, which has no name: {description}")

    def _missing(self, spec: ColSpec) -> str:
        return f"missing; must be {json_terms.expected(spec)}{json_terms.such_as(json_terms.example(spec.type))}"

    def _refuses(self, columns: Sequence[int], rows: Sequence[Row]) -> bool:
        beside = [self._table.companion] if self._table.companion is not None else []
        schema = Schema([*(self._specs[index] for index in columns), *beside])
        return not self._is_taken_by(self._probe, self._table.payload(rows), schema)

    def _rows(self, columns: Sequence[int], rows: Sequence[int]) -> list[Row]:
        return [{index: self._table.cell(index, row) for index in columns} for row in rows]

    def _refused_columns(self, rows: Sequence[int]) -> Iterator[int]:
        """Yields the columns that MLflow refuses by themselves; needs few checks while most columns are valid."""
        present = [index for index in range(len(self._specs)) if self._table.has(index)]
        pending, count = [present] if present else [], 0
        reserved = MAX_PROBES - MAX_COLUMN_PROBES
        while pending and self._probes_left > reserved and count < MAX_COLUMNS:
            columns = pending.pop()
            if not self._refuses(columns, self._rows(columns, rows)):
                continue
            if len(columns) == 1:
                count += 1
                yield columns[0]
            else:
                middle = len(columns) // 2
                pending += [columns[middle:], columns[:middle]]

    def _descriptions(self, index: int, rows: Sequence[int]) -> list[str]:
        row = self._refused_row(index, rows)
        if row is None:
            return [self._joint_description(index)]
        spec, cell = self._specs[index], self._table.cell(index, row)
        label = str(spec.name) if spec.name is not None else self._field_name(index)
        if cell is ABSENT:
            path = self._path("", row, self._table.row_path(row))
            return [str(value_faults.lacking(label, spec.type, path, lambda example: self._takes(index, example)))]
        path = self._path(label, row, self._table.path(index, row))
        if self._is_taken_elsewhere(index, cell):
            return [f"{path} has to be {self._taken_elsewhere(spec)}"]
        if self._is_of_several_rows(index, cell):
            return [
                f"{path} has a value for each of several rows, but MLflow reads the object in {self._table.format} as "
                "one row: send dataframe_records"
            ]
        if isinstance(spec.type, DataType) and self._is_taken_elsewhere(index, json_terms.example(spec.type)):
            return [f"{path} {json_terms.problem(cell, spec.type)}; must be {self._taken_elsewhere(spec)}"]
        refused = value_faults.within(
            cell,
            spec.type,
            path,
            required=spec.required,
            takes_here=lambda replacement: self._takes(index, replacement),
        )
        return [str(self._with_way_out(fault, cell, spec)) for fault in islice(refused, MAX_IN_A_CELL)]

    def _taken_elsewhere(self, spec: ColSpec) -> str:
        name, format_name = json_terms.type_name(spec.type), self._table.format
        is_date = format_name == CsvTable.format and spec.type == DataType.datetime
        csv_dates = ", or have the server parse dates (--csv-dates)" if is_date else ""
        return f"{name}, which MLflow does not take in {format_name}: send dataframe_records{csv_dates}"

    def _field_name(self, index: int) -> str:
        """Returns the name of a column in messages if it has none; see `mlflow_grpc.contract`."""
        return "value" if len(self._specs) == 1 else f"column_{index}"

    def _with_way_out(self, fault: value_faults.Fault, cell: Any, spec: ColSpec) -> value_faults.Fault:
        is_nan = isinstance(cell, float) and math.isnan(cell)
        if cell is not None and not is_nan:
            return fault
        problem = "is empty" if self._table.format == CsvTable.format else fault.problem
        way_out = "" if spec.required or "leave it out" in fault.remedy else "; or leave the column out of all rows"
        return replace(fault, problem=problem, remedy=f"{fault.remedy}{way_out}")

    def _is_taken_elsewhere(self, index: int, cell: Any) -> bool:
        """Returns True if another format accepts the same cell, so that only this format refuses it."""
        spec = self._specs[index]
        if self._elsewhere is None or spec.name is None:
            return False
        # Other formats cast scalars that MLflow refuses here, though not always to the value that the caller means.
        if isinstance(spec.type, DataType) and self._takes(index, json_terms.example(spec.type)):
            return False
        return self._is_taken_by(self._elsewhere, [{str(spec.name): cell}], Schema([spec]))

    def _is_of_several_rows(self, index: int, cell: Any) -> bool:
        """Returns True if the table is one row, and the cell is an array of cells that another format accepts."""
        is_row = isinstance(self._table, ColumnsTable) and self._table.companion is not None
        if not is_row or self._elsewhere is None or not isinstance(cell, list) or not cell:
            return False
        spec = self._specs[index]
        return self._is_taken_by(self._elsewhere, [{str(spec.name): item} for item in cell], Schema([spec]))

    def _is_taken_by(self, probe: Probe, payload: Any, schema: Schema) -> bool:
        self._probes_left -= 1
        try:
            probe(payload, schema)
        except Exception:  # noqa: BLE001 - MLflow's server refuses a payload for every exception
            return False
        return True

    def _takes(self, index: int, cell: Any) -> bool:
        return not self._refuses([index], [{index: cell}])

    def _refused_row(self, index: int, rows: Sequence[int]) -> int | None:
        """Returns the first row that MLflow refuses for this column; None if it refuses only several rows together."""
        while len(rows) > 1:
            middle = len(rows) // 2
            for half in (rows[:middle], rows[middle:]):
                if self._probes_left <= 0:
                    return None
                if self._refuses([index], self._rows([index], half)):
                    rows = half
                    break
            else:
                return None
        return rows[0] if rows else None

    def _joint_description(self, index: int) -> str:
        """Returns the description of a column whose values are refused only together."""
        spec = self._specs[index]
        cells = [self._table.cell(index, row) for row in range(min(self._table.count, MAX_VALUES))]
        present = [cell for cell in cells if cell is not ABSENT]
        if len(present) < len(cells):
            all_rows = self._rows([index], range(self._table.count))
            filled = [{index: None if row[index] is ABSENT else row[index]} for row in all_rows]
            null = "; write null where there is none" if not self._refuses([index], filled) else ""
            return f"is in some rows and not in others, where MLflow takes it in all or in none{null}"
        if spec.type == DataType.datetime and all(cell is None or isinstance(cell, str) for cell in present):
            example = json_terms.such_as(json_terms.example(spec.type))
            return f"the strings differ in form; write all of them alike{example}"
        types = ", ".join(sorted({json_terms.json_type(cell) for cell in present}))
        return f"must be {json_terms.expected(spec)}{f'; the payload has {types}' if types else ''}"


_NUMBERS = frozenset({DataType.integer, DataType.long, DataType.float, DataType.double})
_TYPES_BY_VALUE = _NUMBERS | {DataType.binary, DataType.datetime}
"""Types for which MLflow accepts only some strings or whole numbers."""


def _is_one_of(schema_type: Any, scalars: frozenset[DataType]) -> bool:
    return isinstance(schema_type, DataType) and schema_type in scalars  # Types of arrays and objects have no hash.


def _likeness(cell: Any, schema_type: Any) -> Any:
    """Returns equal values for cells that MLflow probably accepts or refuses alike."""
    if isinstance(cell, str) and _is_one_of(schema_type, _NUMBERS):
        return str, _is_number(cell)
    if isinstance(cell, int) and abs(cell) < 2**31:
        return int
    if isinstance(cell, list) and cell:
        return type(cell[0]), len(cell)
    return tuple(cell) if isinstance(cell, dict) else json_terms.problem(cell, schema_type)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
