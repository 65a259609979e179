"""Values of CSV and JSON lines in the types that a model takes.

Rule of this module: a value that does not fit is a fault of its row. Texts for missing values are those of
pandas.read_csv, which MLflow uses.
"""

import contextlib
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from mlflow_grpc_client._score.chunks import Chunk, Rows, selected

MISSING = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
"""Texts for missing values (`pandas._libs.parsers.STR_NA_VALUES`)."""


class Cell(Enum):
    """What a text in a CSV file stands for."""

    DOUBLE = "a number"
    INTEGER = "a whole number"
    BOOLEAN = "true or false"
    TEXT = "a text"
    UNKNOWN = "any value"
    """The type is that of the other values of the chunk."""


@dataclass
class Decoded:
    """The rows of a chunk that can be sent."""

    rows: Rows
    """The columns for the model; all of them, if the file has types."""
    source: Rows
    """The same rows as they are in the file, for columns to keep."""
    offsets: Sequence[int]
    """Positions of the rows in the chunk."""
    faults: dict[int, str]
    """Why other rows cannot be sent, by their positions in the chunk."""


def decoded(chunk: Chunk, cells: Mapping[str, Cell]) -> Decoded:
    """The rows of a chunk.

    Args:
        chunk: Rows as they are in the file.
        cells: The columns for the model, for CSV.

    """
    if chunk.encoding == "jsonl":
        return _parsed(chunk)
    if chunk.encoding == "csv":
        return _converted(chunk, cells)
    return Decoded(chunk.rows, chunk.rows, chunk.offsets, dict(chunk.faults))


def _parsed(chunk: Chunk) -> Decoded:
    rows: list[dict[str, Any]] = []
    offsets: list[int] = []
    faults: dict[int, str] = {}
    for offset, line in zip(chunk.offsets, chunk.rows, strict=True):
        try:
            row = parsed_json(line)
        except ValueError as error:
            faults[offset] = f"the line is not JSON: {error}"
            continue
        if isinstance(row, dict):
            rows.append(row)
            offsets.append(offset)
        else:
            faults[offset] = 'the line is not a JSON object, such as {"column": 1}'
    return Decoded(rows, rows, offsets, faults)


def parsed_json(text: bytes | str) -> Any:
    """The value of a JSON text, which may have NaN, as in MLflow.

    Raises:
        ValueError: It is not JSON.

    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def _converted(chunk: Chunk, cells: Mapping[str, Cell]) -> Decoded:
    bad: dict[int, str] = {}
    arrays = []
    for name, cell in cells.items():
        array, reasons = _cast(chunk.rows.column(name), cell)
        arrays.append(array)
        for position, reason in reasons.items():
            bad.setdefault(position, f"{name}: {reason}")
    table = pa.table(arrays, names=list(cells))
    if not bad:
        return Decoded(table, chunk.rows, chunk.offsets, dict(chunk.faults))
    faults = {**chunk.faults, **{chunk.offsets[position]: reason for position, reason in bad.items()}}
    positions = [position for position in range(len(chunk.offsets)) if position not in bad]
    offsets = [chunk.offsets[position] for position in positions]
    return Decoded(selected(table, positions), selected(chunk.rows, positions), offsets, faults)


@functools.cache
def _missing() -> Any:
    """`MISSING` in Arrow, made when it is needed, because pa.array imports pandas."""
    return pa.array(MISSING)


def _cast(texts: Any, cell: Cell) -> tuple[Any, dict[int, str]]:
    """A column in its type, and why values do not fit, by their positions."""
    missing = _missing()
    if cell is Cell.TEXT:
        return pc.if_else(pc.is_in(texts, missing), None, texts), {}
    if cell is not Cell.UNKNOWN:
        # In most columns of numbers, no value is missing or has spaces. The texts that Arrow reads as NaN are missing.
        with contextlib.suppress(pa.ArrowInvalid):
            return texts.cast(_ARROW_TYPES[cell][0]), {}
    trimmed = pc.utf8_trim_whitespace(texts)
    values = pc.if_else(pc.is_in(trimmed, missing), None, trimmed)
    for data_type in _ARROW_TYPES[cell]:
        with contextlib.suppress(pa.ArrowInvalid):
            return values.cast(data_type), {}
    if cell is Cell.UNKNOWN:
        return pc.if_else(pc.is_in(texts, missing), None, texts), {}
    return _cast_singly(values.to_pylist(), cell)


def _cast_singly(texts: list[str | None], cell: Cell) -> tuple[Any, dict[int, str]]:
    """A column in which the type does not fit all values."""
    read = _READERS[cell]
    reasons: dict[int, str] = {}
    values: list[Any] = []
    for position, text in enumerate(texts):
        value = None
        if text is not None:
            try:
                value = read(text)
            except (ValueError, KeyError):
                reasons[position] = f"{text!r} is not {cell.value}"
        values.append(value)
    return pa.array(values, _ARROW_TYPES[cell][0]), reasons


def _number(text: str) -> float:
    if "_" in text:  # Python's separator of thousands.
        raise ValueError(text)
    return float(text)


def _integer(text: str) -> int:
    """A whole number, which may be written with a fraction of zero, as pandas does if a value is missing."""
    number: float = int(text) if text.removeprefix("-").isdecimal() else _number(text)
    if not math.isfinite(number) or number != int(number) or not -(2**63) <= number < 2**63:
        raise ValueError(text)
    return int(number)


def _boolean(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


_ARROW_TYPES: dict[Cell, tuple[Any, ...]] = {
    Cell.DOUBLE: (pa.float64(),),
    Cell.INTEGER: (pa.int64(),),
    Cell.BOOLEAN: (pa.bool_(),),
    Cell.UNKNOWN: (pa.int64(), pa.float64(), pa.bool_()),
}

_READERS: dict[Cell, Callable[[str], Any]] = {Cell.DOUBLE: _number, Cell.INTEGER: _integer, Cell.BOOLEAN: _boolean}
"""Functions for single values, for a column with a value that does not fit."""
