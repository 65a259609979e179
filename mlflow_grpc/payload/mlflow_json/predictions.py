"""Rows of the predictions of an MLflow model.

Rule of this module: all predictions that MLflow's JSON writer takes (`predictions_to_json`) are read the way that JSON
represents them. The output schema decides where that is ambiguous, such as for a list in the answer to one record.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pydantic
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object

from mlflow_grpc.errors import UnserializableOutput
from mlflow_grpc.payload.mlflow_json.answer_forms import has_form, is_wrapped
from mlflow_grpc.payload.mlflow_json.answer_values import Convert, convert, converter, json_value, plain_value
from mlflow_grpc.payload.mlflow_json.frames import Frames
from mlflow_grpc.payload.protobuf.values import is_list, key_text

DEPTH_OF_NONES = 1_000
"""Depth of a list that holds only None, because it may be a list of values of any depth."""


@dataclass(frozen=True)
class _Output:
    """One output of a model."""

    name: str
    """Name of the output; empty if the signature has no names."""
    depth: int | None
    """Number of nested lists in a value; None if the output is of any type."""
    convert: Convert | None
    """Converts a value to one that messages can hold; None if they can hold all values."""
    schema_type: Any = None
    """Type in the signature; None for tensors and for models without an output schema."""

    def has_form(self, value: Any) -> bool:
        """Returns True if a value has the form of this output."""
        return not isinstance(value, dict) if self.schema_type is None else has_form(value, self.schema_type)


class Predictions:
    """Reader of the predictions of one model."""

    def __init__(self, schema: Schema | None) -> None:
        """Prepares the conversions of the outputs.

        Args:
            schema: The model's output schema; None if it has none.

        """
        self._frames = Frames(schema)
        specs = [] if schema is None else list(schema)
        self._outputs = [_output_of(spec) for spec in specs] or [_Output("", None, json_value)]
        self._by_name = {output.name: output for output in self._outputs if output.name}
        self._is_nameless = len(specs) > 1 and not self._by_name
        if self._is_nameless:
            self._by_name = {f"column_{index}": output for index, output in enumerate(self._outputs)}
        self._converts = any(output.convert is not None for output in self._outputs)
        self._is_any = len(self._outputs) == 1 and not self._by_name and self._outputs[0].depth is None
        self._is_bare = len(specs) == 1 and not self._by_name and not isinstance(specs[0].type, Object | Map | AnyType)
        only = self._outputs[0].schema_type if len(specs) == 1 else None
        self._nested = only if isinstance(only, Array | Map | Object) else None

    def columns(self, predictions: Any) -> dict[str, Any] | None:
        """Returns the columns of a table of scalars by the names of outputs; None for other predictions."""
        return self._frames.columns(predictions) if isinstance(predictions, pd.DataFrame) else None

    def rows(self, predictions: Any, count: int) -> list[Any]:
        """Returns the predicted rows: dictionaries, lists or bare values.

        Most models predict one row for each input row. A forecast may predict another number of rows for one input
        row; where the output is of any type, their list is then the one value.

        Args:
            predictions: The return value of the model.
            count: Number of input rows.

        Raises:
            UnserializableOutput: The predictions have no rows.

        """
        rows = self._rows(plain_value(predictions), count)
        types = set(map(type, rows))
        if any(issubclass(row_type, _WRAPPERS) for row_type in types):
            rows = [plain_value(row) for row in rows]
            types = set(map(type, rows))
        if not isinstance(predictions, pd.DataFrame) and any(issubclass(row_type, dict) for row_type in types):
            rows = self._named_rows(rows)  # `Frames` has already named the columns of DataFrames.
        if self._nested is not None and not (types <= _SIZED and 1 not in set(map(len, rows))):
            rows = [self._unwrapped(row) for row in rows]
        return [self._converted(row) for row in rows] if self._converts else rows

    def _rows(self, predictions: Any, count: int) -> list[Any]:
        if isinstance(predictions, pd.DataFrame | pd.Series):
            rows = self._frames.rows(predictions)
            return [rows] if self._is_any and count == 1 and len(rows) != 1 else rows
        if isinstance(predictions, dict) and self._is_only_column(predictions):
            (column,) = predictions.values()  # Under a name that the signature does not have.
            return self._rows(plain_value(column), count)
        if isinstance(predictions, dict):
            names = self._names_by_position(predictions)
            columns = predictions if names is None else {names[label]: value for label, value in predictions.items()}
            return [self._record(columns)] if count == 1 and not self._has_columns(columns) else _transposed(columns)
        if count == 1 and not (is_list(predictions) and self._has_rows(predictions)):
            return [predictions]
        if not is_list(predictions):
            _refuse_without_rows()
        return list(predictions)

    def _is_only_column(self, columns: dict[Any, Any]) -> bool:
        """Returns True if a dictionary holds only the values of the only output, which has no name."""
        if len(columns) != 1 or self._by_name:
            return False
        return self._is_bare or (self._nested is not None and not has_form(columns, self._nested))

    def _names_by_position(self, labels: Iterable[Any]) -> dict[Any, str] | None:
        """Returns the name of an output for each column label, where columns are matched by position.

        That is so where outputs have no names, and where the labels are 0, 1 and so on. Returns None if the labels are
        names.
        """
        label_list, names = list(labels), list(self._by_name)
        if len(label_list) != len(names) or {key_text(label) for label in label_list} == set(names):
            return None
        is_counted = label_list == list(range(len(names))) and not any(isinstance(label, bool) for label in label_list)
        return dict(zip(label_list, names, strict=True)) if self._is_nameless or is_counted else None

    def _named_rows(self, rows: list[Any]) -> list[Any]:
        """Returns rows by the names of outputs, or as lists in their order where outputs have no names.

        The first dictionary decides the order of the columns for all rows.
        """
        names_by_label = self._names_by_position(next((row for row in rows if isinstance(row, dict)), ()))
        if names_by_label is not None:
            rows = [
                {name: row[label] for label, name in names_by_label.items()}
                if isinstance(row, dict) and row.keys() == names_by_label.keys()
                else row
                for row in rows
            ]
        if not self._is_nameless:
            # Rows with several values are values themselves, and so are the shorter rows among them.
            is_bare = self._is_bare and all(len(row) == 1 for row in rows if isinstance(row, dict))
            return [self._with_text_labels(row, is_bare) if isinstance(row, dict) else row for row in rows]
        names = self._by_name
        return [
            [row[name] for name in names] if isinstance(row, dict) and row.keys() == names.keys() else row
            for row in rows
        ]

    def _unwrapped(self, row: Any) -> Any:
        """Returns the value of the only output if a row holds it under any name or as its only item."""
        if (isinstance(row, dict) and self._by_name) or not is_wrapped(row, self._nested):
            return row
        return next(iter(row.values())) if isinstance(row, dict) else row[0]

    def _with_text_labels(self, row: dict[Any, Any], is_bare: bool) -> Any:
        """Returns a row whose column labels are texts, as in JSON; its only value for a bare output."""
        if is_bare:
            return next(iter(row.values()))
        return {key_text(name): value for name, value in row.items()} if self._by_name else row

    def _has_rows(self, values: Any) -> bool:
        """Returns True if a list that was predicted for one record is a list of rows, False if it is the row itself."""
        if len(self._outputs) > 1:
            return len(values) != len(self._outputs) or not all(
                output.has_form(value) for output, value in zip(self._outputs, values, strict=True)
            )
        (output,) = self._outputs
        if output.depth is None:
            return len(values) == 1
        return _depth(values) > output.depth or (
            len(values) == 1 and (_is_record_of(output, values[0]) or is_wrapped(values[0], output.schema_type))
        )

    def _has_columns(self, record: dict[Any, Any]) -> bool:
        """Returns True if a dictionary that was predicted for one record holds columns with no row or several rows."""
        if not self._by_name or not record:
            return False
        if not all(is_list(value) for value in record.values()) or {len(value) for value in record.values()} == {1}:
            return False
        outputs = [(self._by_name.get(key_text(name)), value) for name, value in record.items()]
        depths = [(output.depth, value) for output, value in outputs if output is not None and output.depth is not None]
        return (
            bool(depths)
            and all(output is not None for output, _ in outputs)
            and all(_depth(value) > depth for depth, value in depths)
        )

    def _record(self, columns: dict[Any, Any]) -> dict[Any, Any]:
        """Returns the values of one record, from a dictionary of values or of columns with one row."""
        if not self._by_name:
            is_any = self._outputs[0].depth is None
            arrays = [value for value in columns.values() if isinstance(value, np.ndarray) and value.shape[:1] == (1,)]
            are_arrays = is_any and len(arrays) == len(columns)
            return {name: value[0] for name, value in columns.items()} if are_arrays else columns
        outputs = [(name, self._by_name.get(key_text(name)), value) for name, value in columns.items()]
        # A list of an output of any type may be its value, so the other outputs decide whether all are columns.
        are_columns = any(
            output is not None and output.depth is not None and is_list(value) and _depth(value) > output.depth
            for _, output, value in outputs
        )
        return {name: self._value(output, value, are_columns=are_columns) for name, output, value in outputs}

    @staticmethod
    def _value(output: _Output | None, value: Any, *, are_columns: bool) -> Any:
        if not is_list(value):
            return plain_value(value)
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
                return {**row, output.name: convert(output.convert, row[output.name])}
            return convert(output.convert, row)
        if isinstance(row, dict):
            outputs = ((name, self._by_name.get(key_text(name))) for name in row)
            return {name: convert(output.convert if output else None, row[name]) for name, output in outputs}
        if not is_list(row) or len(row) != len(self._outputs):
            return row
        return [convert(output.convert, value) for output, value in zip(self._outputs, row, strict=True)]


def _is_record_of(output: _Output, row: Any) -> bool:
    """Returns True if a row is a dictionary with the output under its name."""
    content = row.model_dump() if isinstance(row, pydantic.BaseModel) else row
    return bool(output.name) and isinstance(content, dict) and output.name in content


def refuse_rows(count: int) -> NoReturn:
    """Raises an error because the message of one row cannot hold another number of rows."""
    raise UnserializableOutput(
        f"The model predicted {count} rows for one record, and the response message holds one row. Send the record as "
        "the only row of predict_batch, whose response holds all rows, or call the plain predict of service MLflow."
    )


def _transposed(columns: dict[Any, Any]) -> list[dict[Any, Any]]:
    values = list(columns.values())
    if not values or not all(is_list(column) and len(column) == len(values[0]) for column in values):
        _refuse_without_rows()
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def _refuse_without_rows() -> NoReturn:
    raise UnserializableOutput(
        "The model's predictions have no row for each input row. Call the plain predict of service MLflow, which "
        "returns all forms of predictions."
    )


_WRAPPERS = (pydantic.BaseModel, np.ndarray, np.void)
"""Types of rows that may wrap another value: an object a dictionary, an array without dimensions a single value."""


_SIZED = {dict, list, tuple, np.ndarray}
"""Types of rows that have a length. Checking the types first is ten times as fast as checking each row."""


def _depth(value: Any) -> int:
    """Returns the number of nested lists; the first item of a list that is not None counts."""
    depth = 0
    while is_list(value):
        if isinstance(value, np.ndarray) and value.dtype != object:
            return int(depth + value.ndim)
        depth += 1
        if not len(value):
            return depth
        value = next((item for item in value if item is not None), None)
        if value is None:
            return depth + DEPTH_OF_NONES
    return depth


def _output_of(spec: ColSpec | TensorSpec) -> _Output:
    name = "" if spec.name is None else str(spec.name)
    if isinstance(spec, TensorSpec):
        shape = spec.shape[1:] if spec.shape[:1] == (-1,) else spec.shape
        return _Output(name, len(shape), None)
    return _Output(name, _depth_of_type(spec.type), converter(spec.type), spec.type)


def _depth_of_type(schema_type: Any) -> int | None:
    depth = 0
    while isinstance(schema_type, Array):
        depth, schema_type = depth + 1, schema_type.dtype
    return None if isinstance(schema_type, AnyType) else depth
