"""Which columns of a table MLflow refuses, in which row, and what stands there.

Rule of this module: MLflow judges. It is shown the table again with fewer columns, then with fewer rows, so that what
is named is refused for itself; how often is bounded, since each time a part of the payload is parsed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from mlflow.types import ColSpec, DataType, Schema

from mlflow_grpc.errors import FieldViolation
from mlflow_grpc.payload.codec import ABSENT
from mlflow_grpc.payload.mlflow_json.refusals import json_terms, value_faults
from mlflow_grpc.payload.mlflow_json.refusals.tables import CsvTable, Row, Table

MAX_PROBES = 96
"""How often MLflow is asked about parts of one refused payload."""

MAX_COLUMN_PROBES = 64
"""How many of these look for columns; the others look for rows and try examples."""

MAX_COLUMNS = 16
"""How many columns are named."""

MAX_SAMPLE = 256
"""How many rows are looked at first."""

MAX_CELLS = 200_000
"""The largest table of which all rows are looked at; MLflow reads it several times for that."""

MAX_IN_A_CELL = 4
"""How many places within one cell are named."""

MAX_VALUES = 1000
"""How many values of a column are looked at, to tell which types of JSON it holds."""

Probe = Callable[[Any, Schema], None]
"""Parses and enforces a payload of the table's format for a schema; raises what MLflow raises."""

Path = Callable[[str, int, str], str]
"""What a place is called, from a column's label (empty for all of a row), the row and its path in the payload."""


class ColumnFaults:
    """Looks for the faults of one table."""

    def __init__(self, table: Table, schema: Schema, probe: Probe, path: Path, elsewhere: Probe | None = None) -> None:
        """Args:
        table: What was sent.
        schema: What the model takes.
        probe: Asks MLflow.
        path: Names places.
        elsewhere: Asks MLflow about `dataframe_records`; None if what was sent is as good.
        """
        self._elsewhere = elsewhere
        self._table = table
        self._specs: list[Any] = list(schema.inputs)
        self._probe = probe
        self._path = path
        self._left = MAX_PROBES

    def violations(self) -> list[FieldViolation]:
        """The columns at fault, with the first row in which each is.

        Most refusals show in a few rows, so those are looked at first, and all of them only if nothing is found.
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
        """The first row for every way in which a cell of a column can be unlike others."""
        rows: set[int] = set()
        for index, spec in enumerate(self._specs):
            seen: set[Any] = set()
            is_plain = not _is_one_of(spec.type, _LOOKED_INTO)
            for row in range(self._table.count if self._table.has(index) else 0):
                cell = self._table.cell(index, row)
                # Of most cells the type says all, and there may be millions.
                likeness: Any = type(cell)
                if likeness in (list, dict) or not (is_plain or likeness in (float, bool)):
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
        """Those that MLflow refuses by themselves, found with few probes while most columns are fine."""
        present = [index for index in range(len(self._specs)) if self._table.has(index)]
        pending, count = [present] if present else [], 0
        kept = MAX_PROBES - MAX_COLUMN_PROBES
        while pending and self._left > kept and count < MAX_COLUMNS:
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
            return [self._together(index)]
        spec, cell = self._specs[index], self._table.cell(index, row)
        label = str(spec.name) if spec.name is not None else self._field_name(index)
        if cell is ABSENT:
            path = self._path("", row, self._table.row_path(row))
            return [str(value_faults.lacking(label, spec.type, path, lambda other: self._takes(index, other)))]
        path = self._path(label, row, self._table.path(index, row))
        if self._is_taken_elsewhere(index, cell):
            name, format_name = json_terms.type_name(spec.type), self._table.format
            what = f"{path} has to be {name}, which MLflow does not take in {format_name}"
            is_date = self._table.format == CsvTable.format and spec.type == DataType.datetime
            return [
                f"{what}: send dataframe_records{', or have the server parse dates (--csv-dates)' if is_date else ''}"
            ]
        refused = value_faults.within(
            cell,
            spec.type,
            path,
            required=spec.required,
            takes_here=lambda other: self._takes(index, other),
        )
        return [str(self._with_way_out(fault, cell, spec)) for fault in islice(refused, MAX_IN_A_CELL)]

    def _field_name(self, index: int) -> str:
        """What a column without a name is called in messages; see `mlflow_grpc.contract`."""
        return "value" if len(self._specs) == 1 else f"column_{index}"

    def _with_way_out(self, fault: value_faults.Fault, cell: Any, spec: ColSpec) -> value_faults.Fault:
        if cell is not None:
            return fault
        problem = "is empty" if self._table.format == CsvTable.format else fault.problem
        way_out = "" if spec.required or "leave it out" in fault.remedy else "; or leave the column out of all rows"
        return replace(fault, problem=problem, remedy=f"{fault.remedy}{way_out}")

    def _is_taken_elsewhere(self, index: int, cell: Any) -> bool:
        """Whether it is the format that is refused, and not the cell: another format takes the very same."""
        spec = self._specs[index]
        if self._elsewhere is None or spec.name is None:
            return False
        # Of scalars other formats cast what MLflow refuses here, and not always to what the caller means.
        if isinstance(spec.type, DataType) and self._takes(index, json_terms.example(spec.type)):
            return False
        return self._is_taken_by(self._elsewhere, [{str(spec.name): cell}], Schema([spec]))

    def _is_taken_by(self, probe: Probe, payload: Any, schema: Schema) -> bool:
        self._left -= 1
        try:
            probe(payload, schema)
        except Exception:  # noqa: BLE001 - MLflow's server refuses a payload whatever the parser raises
            return False
        return True

    def _takes(self, index: int, cell: Any) -> bool:
        return not self._refuses([index], [{index: cell}])

    def _refused_row(self, index: int, rows: Sequence[int]) -> int | None:
        """The first row that MLflow refuses for this column; None if it refuses only several together."""
        while len(rows) > 1:
            middle = len(rows) // 2
            for half in (rows[:middle], rows[middle:]):
                if self._left <= 0:
                    return None
                if self._refuses([index], self._rows([index], half)):
                    rows = half
                    break
            else:
                return None
        return rows[0] if rows else None

    def _together(self, index: int) -> str:
        """What is said of a column whose values are refused only beside each other."""
        spec = self._specs[index]
        cells = [self._table.cell(index, row) for row in range(min(self._table.count, MAX_VALUES))]
        present = [cell for cell in cells if cell is not ABSENT]
        if len(present) < len(cells):
            all_rows = self._rows([index], range(self._table.count))
            filled = [{index: None if row[index] is ABSENT else row[index]} for row in all_rows]
            null = "; write null where there is none" if not self._refuses([index], filled) else ""
            return f"is in some rows and not in others, where MLflow takes it in all or in none{null}"
        if spec.type == DataType.datetime and all(isinstance(cell, str) for cell in present):
            example = json_terms.such_as(json_terms.example(spec.type))
            return f"the strings differ in form; write all of them alike{example}"
        types = ", ".join(sorted({json_terms.json_type(cell) for cell in present}))
        return f"must be {json_terms.expected(spec)}{f'; the payload has {types}' if types else ''}"


_NUMBERS = frozenset({DataType.integer, DataType.long, DataType.float, DataType.double})
_LOOKED_INTO = _NUMBERS | {DataType.binary, DataType.datetime}
"""Types of which MLflow takes some strings or whole numbers and not others."""


def _is_one_of(of: Any, scalars: frozenset[DataType]) -> bool:
    return isinstance(of, DataType) and of in scalars  # Types of arrays and objects have no hash.


def _likeness(cell: Any, of: Any) -> Any:
    """The same for cells that MLflow takes or refuses alike, as far as that shows."""
    if isinstance(cell, str) and _is_one_of(of, _NUMBERS):
        return str, _is_number(cell)
    if isinstance(cell, int) and abs(cell) < 2**31:
        return int
    if isinstance(cell, list) and cell:
        return type(cell[0]), len(cell)
    return tuple(cell) if isinstance(cell, dict) else json_terms.problem(cell, of)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
