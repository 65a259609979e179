"""What a model of MLflow's predicted, row by row.

Rule of this module: whatever MLflow's JSON writer takes (`predictions_to_json`) is read as JSON has it. Where that is
ambiguous, such as for a list in the answer to one record, the output schema decides.
"""

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pydantic
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object

from mlflow_grpc.errors import UnwritableAnswer
from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.payload.mlflow_json.answer_forms import has_form, is_wrapped
from mlflow_grpc.payload.mlflow_json.frames import Frames
from mlflow_grpc.payload.protobuf.values import MAX_DEPTH, is_list, is_nothing, key_text

Convert = Callable[[Any], Any]

ONLY_NONE = 1_000
"""The depth of a list that has nothing but None in it: of more than any value's."""


@dataclass(frozen=True)
class _Output:
    """One output of a model."""

    name: str
    """Empty if it has none."""
    depth: int | None
    """How deep lists are nested in a value of it; None if it is of any type."""
    convert: Convert | None
    """What makes a value of it one that messages know; None if every value is one."""
    schema_type: Any = None
    """The type in the signature; None for tensors, and where the signature says nothing."""

    def has_form(self, value: Any) -> bool:
        """Whether a value can be one of this output."""
        return not isinstance(value, dict) if self.schema_type is None else has_form(value, self.schema_type)


class Predictions:
    """Reads what one model predicts."""

    def __init__(self, schema: Schema | None) -> None:
        """Args:
        schema: Of the model's output; None if it says nothing.
        """
        self._frames = Frames(schema)
        specs = [] if schema is None else list(schema)
        self._outputs = [_output_of(spec) for spec in specs] or [_Output("", None, _as_json)]
        self._by_name = {output.name: output for output in self._outputs if output.name}
        self._is_nameless = len(specs) > 1 and not self._by_name
        if self._is_nameless:
            self._by_name = {f"column_{place}": output for place, output in enumerate(self._outputs)}
        self._converts = any(output.convert is not None for output in self._outputs)
        self._is_any = len(self._outputs) == 1 and not self._by_name and self._outputs[0].depth is None
        self._is_bare = len(specs) == 1 and not self._by_name and not isinstance(specs[0].type, Object | Map | AnyType)
        only = self._outputs[0].schema_type if len(specs) == 1 else None
        self._nested = only if isinstance(only, Array | Map | Object) else None

    def rows(self, predictions: Any, count: int) -> list[Any]:
        """What was predicted for so many rows: dictionaries, lists or bare values.

        Most models give as many. One that gives another number (a forecast) has one value for all where its output is
        of any type: the list of them.

        Raises:
            UnwritableAnswer: It has no rows.

        """
        rows = self._rows(_opened(predictions), count)
        types = set(map(type, rows))
        if any(issubclass(row_type, _CLOSED) for row_type in types):
            rows = [_opened(row) for row in rows]
            types = set(map(type, rows))
        if not isinstance(predictions, pd.DataFrame) and any(issubclass(row_type, dict) for row_type in types):
            rows = self._named(rows)  # The labels of DataFrames have been seen to.
        if self._nested is not None and not (types <= _SIZED and 1 not in set(map(len, rows))):
            rows = [self._unwrapped(row) for row in rows]
        return [self._converted(row) for row in rows] if self._converts else rows

    def _rows(self, found: Any, count: int) -> list[Any]:
        if isinstance(found, pd.DataFrame | pd.Series):
            rows = self._frames.rows(found)
            return [rows] if self._is_any and count == 1 and len(rows) != 1 else rows
        if isinstance(found, dict) and self._is_only_column(found):
            return self._rows(_opened(*found.values()), count)  # By a name that the signature does not have.
        if isinstance(found, dict):
            places = self._by_place(found)
            found = found if places is None else {places[label]: value for label, value in found.items()}
            return [self._record(found)] if count == 1 and not self._has_columns(found) else _transposed(found)
        if count == 1 and not (is_list(found) and self._has_rows(found)):
            return [found]
        if not is_list(found):
            _refuse_without_rows()
        return list(found)

    def _is_only_column(self, found: dict[Any, Any]) -> bool:
        """Whether a dictionary has nothing but the values of the only output, which has no name."""
        if len(found) != 1 or self._by_name:
            return False
        return self._is_bare or (self._nested is not None and not has_form(found, self._nested))

    def _by_place(self, labels: Iterable[Any]) -> dict[Any, str] | None:
        """The name of an output for each label of a column, where columns are taken by their places.

        That is so where outputs have no names, and where labels are 0, 1 and so on. None if labels are names.
        """
        listed, names = list(labels), list(self._by_name)
        if len(listed) != len(names) or {key_text(label) for label in listed} == set(names):
            return None
        is_counted = listed == list(range(len(names))) and not any(isinstance(label, bool) for label in listed)
        return dict(zip(listed, names, strict=True)) if self._is_nameless or is_counted else None

    def _named(self, rows: list[Any]) -> list[Any]:
        """Rows by the names of outputs, or as lists where these have none: all in the order of the first dictionary."""
        places = self._by_place(next((row for row in rows if isinstance(row, dict)), ()))
        if places is not None:
            rows = [
                {name: row[label] for label, name in places.items()}
                if isinstance(row, dict) and row.keys() == places.keys()
                else row
                for row in rows
            ]
        if not self._is_nameless:
            return [self._labelled(row) if isinstance(row, dict) else row for row in rows]
        names = self._by_name
        return [
            [row[name] for name in names] if isinstance(row, dict) and row.keys() == names.keys() else row
            for row in rows
        ]

    def _unwrapped(self, row: Any) -> Any:
        """The value of the only output, where a row holds it under any name or as its only item."""
        if (isinstance(row, dict) and self._by_name) or not is_wrapped(row, self._nested):
            return row
        return next(iter(row.values())) if isinstance(row, dict) else row[0]

    def _labelled(self, row: dict[Any, Any]) -> Any:
        """A row with texts for the labels of its columns, as JSON has them; the only value where there is no label."""
        if self._is_bare and len(row) == 1:
            return next(iter(row.values()))
        return {key_text(name): value for name, value in row.items()} if self._by_name else row

    def _has_rows(self, found: Any) -> bool:
        """Whether a list that was predicted for one record is one of rows, and not the row itself."""
        if len(self._outputs) > 1:
            return len(found) != len(self._outputs) or not all(
                output.has_form(value) for output, value in zip(self._outputs, found, strict=True)
            )
        (output,) = self._outputs
        if output.depth is None:
            return len(found) == 1
        return _depth(found) > output.depth or (
            len(found) == 1 and (_is_record_of(output, found[0]) or is_wrapped(found[0], output.schema_type))
        )

    def _has_columns(self, found: dict[Any, Any]) -> bool:
        """Whether a dictionary that was predicted for one record has lists of several rows, or of none."""
        if not self._by_name or not found:
            return False
        if not all(is_list(value) for value in found.values()) or {len(value) for value in found.values()} == {1}:
            return False
        outputs = [(self._by_name.get(key_text(name)), value) for name, value in found.items()]
        known = [(output.depth, value) for output, value in outputs if output is not None and output.depth is not None]
        return (
            bool(known)
            and all(output is not None for output, _ in outputs)
            and all(_depth(value) > depth for depth, value in known)
        )

    def _record(self, found: dict[Any, Any]) -> dict[Any, Any]:
        """A dictionary for one record: of its values, or of columns with one row."""
        if not self._by_name:
            is_any = self._outputs[0].depth is None
            arrays = [value for value in found.values() if isinstance(value, np.ndarray) and value.shape[:1] == (1,)]
            return {name: value[0] for name, value in found.items()} if is_any and len(arrays) == len(found) else found
        outputs = [(name, self._by_name.get(key_text(name)), value) for name, value in found.items()]
        # A list in the place of any value may be that value: the others tell whether all of them are columns.
        are_columns = any(
            output is not None and output.depth is not None and is_list(value) and _depth(value) > output.depth
            for _, output, value in outputs
        )
        return {name: self._value(output, value, are_columns=are_columns) for name, output, value in outputs}

    @staticmethod
    def _value(output: _Output | None, value: Any, *, are_columns: bool) -> Any:
        if not is_list(value):
            return _opened(value)
        if output is None or (output.depth is None and not (are_columns or isinstance(value, np.ndarray))):
            return value
        if output.depth is not None and _depth(value) <= output.depth:
            return value
        if len(value) != 1:
            refuse_rows(len(value))
        return value[0]

    def _converted(self, row: Any) -> Any:
        if len(self._outputs) == 1:
            (output,) = self._outputs
            if _is_record_of(output, row):
                return {**row, output.name: _applied(output.convert, row[output.name])}
            return _applied(output.convert, row)
        if isinstance(row, dict):
            outputs = ((name, self._by_name.get(key_text(name))) for name in row)
            return {name: _applied(output.convert if output else None, row[name]) for name, output in outputs}
        if not is_list(row) or len(row) != len(self._outputs):
            return row
        return [_applied(output.convert, value) for output, value in zip(self._outputs, row, strict=True)]


def _is_record_of(output: _Output, row: Any) -> bool:
    """Whether a row is a dictionary with the output under its name."""
    found = row.model_dump() if isinstance(row, pydantic.BaseModel) else row
    return bool(output.name) and isinstance(found, dict) and output.name in found


def refuse_rows(count: int) -> NoReturn:
    """Says that an answer of another number of rows than one cannot stand in the message of one row."""
    raise UnwritableAnswer(
        f"The model predicted {count} rows for one record, and the message of its answer has one. Send the record as "
        "the only row of predict_batch, whose answer has them all; so has that of the plain predict of service MLflow."
    )


def _transposed(columns: dict[Any, Any]) -> list[dict[Any, Any]]:
    parts = list(columns.values())
    if not parts or not all(is_list(part) and len(part) == len(parts[0]) for part in parts):
        _refuse_without_rows()
    return [dict(zip(columns, row, strict=True)) for row in zip(*parts, strict=True)]


def _refuse_without_rows() -> NoReturn:
    raise UnwritableAnswer(
        "The model returned something that has no row for each row. The plain predict of service MLflow gives "
        "whatever the model returns."
    )


_CLOSED = (pydantic.BaseModel, np.ndarray, np.void)
"""Types of rows that may stand for others: objects for dictionaries, arrays without a dimension for single values."""


_SIZED = {dict, list, tuple, np.ndarray}
"""Types of rows that have a length: looking at those alone is ten times as fast as looking into each row."""


def _opened(value: Any) -> Any:
    """What an object of pydantic's, an array without a dimension, with names for its columns or with a mask holds."""
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump()
    if isinstance(value, np.ndarray):
        if type(value) is not np.ndarray or value.dtype.names:
            return value.tolist()
        return value if value.ndim else value[()]
    return value.item() if isinstance(value, np.void) else value


def _depth(value: Any) -> int:
    """How deep lists are nested in one another, by the first that is not None of each."""
    depth = 0
    while is_list(value):
        if isinstance(value, np.ndarray) and value.dtype != object:
            return int(depth + value.ndim)
        depth += 1
        if not len(value):
            return depth
        value = next((item for item in value if item is not None), None)
        if value is None:
            return depth + ONLY_NONE
    return depth


def _output_of(spec: ColSpec | TensorSpec) -> _Output:
    name = "" if spec.name is None else str(spec.name)
    if isinstance(spec, TensorSpec):
        shape = spec.shape[1:] if spec.shape[:1] == (-1,) else spec.shape
        return _Output(name, len(shape), None)
    return _Output(name, _depth_of_type(spec.type), _converter(spec.type), spec.type)


def _depth_of_type(kind: Any) -> int | None:
    depth = 0
    while isinstance(kind, Array):
        depth, kind = depth + 1, kind.dtype
    return None if isinstance(kind, AnyType) else depth


def _applied(convert: Convert | None, value: Any) -> Any:
    return value if convert is None or is_nothing(value) else convert(value)


def _converter(kind: Any) -> Convert | None:
    """What makes values of a type ones that messages know; None if they all are."""
    if kind == DataType.string:
        return _as_text
    if isinstance(kind, AnyType):
        return _as_json
    if isinstance(kind, Object):
        return _object_converter({each.name: _converter(each.dtype) for each in kind.properties})
    if isinstance(kind, Array) and (of_item := _converter(kind.dtype)) is not None:
        return lambda value: [_applied(of_item, item) for item in value] if is_list(value) else value
    if isinstance(kind, Map) and (of_value := _converter(kind.value_type)) is not None:
        return lambda value: (
            {key: _applied(of_value, item) for key, item in value.items()} if isinstance(value, dict) else value
        )
    return None


def _object_converter(properties: dict[str, Convert | None]) -> Convert:
    def convert(value: Any) -> Any:
        found = _opened(value)
        if not isinstance(found, dict):
            return found
        return {name: _applied(properties.get(name), item) for name, item in found.items()}

    return convert


def _as_text(value: Any) -> Any:
    """A point in time as MLflow writes it, which is not how pydantic does: with +00:00 for UTC; bytes in base64."""
    if isinstance(value, bytes | bytearray):
        return internals.json_default(value)
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else value


def _as_json(value: Any, depth: int = 0) -> Any:
    """What JSON has for a value, by MLflow's encoder; what that does not know stays as it is."""
    if value is None or isinstance(value, str | int | float) or is_nothing(value) or depth > MAX_DEPTH:
        return value
    if isinstance(value, dict):
        return {key: _as_json(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item, depth + 1) for item in value]
    try:
        found = internals.json_default(value)
    except TypeError:
        return value
    return found if isinstance(found, str | int | float) else _as_json(found, depth)
