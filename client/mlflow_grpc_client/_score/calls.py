"""Calls of a model with rows of files: in its own types, or in JSON if it has no types.

Rule of this module: it knows which columns go into a call and what comes back; `scorer` knows what to do about errors.
"""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from _mlflow_grpc_protocol.scalars import FLOATS, INTEGER_BOUNDS
from _mlflow_grpc_protocol.shapes import EnumShape, FieldShape, ScalarShape, TensorShape, TimestampShape, ValueShape
from _mlflow_grpc_protocol.typed_terms import RpcKind
from google.protobuf.descriptor import FieldDescriptor

from mlflow_grpc_client import Client
from mlflow_grpc_client._score.answers import table_of, types_of
from mlflow_grpc_client._score.casts import Cell, parsed_json
from mlflow_grpc_client._score.chunks import Rows
from mlflow_grpc_client._score.errors import InvalidUsage
from mlflow_grpc_client._typed.contract import Contract
from mlflow_grpc_client._typed.scalars import ABSENT


@dataclass(frozen=True)
class CallOptions:
    """What all calls of a run have in common."""

    model: str
    """Name of the model in calls; empty for the only or the default model."""
    params: dict[str, Any] | None
    columns: tuple[str, ...] | None
    """The columns for the model; None for those that it takes."""
    prefix: str
    timeout_s: float


class JsonCalls:
    """Calls of a model that has no types, with MLflow's JSON."""

    def __init__(self, client: Client, options: CallOptions) -> None:
        self._client = client
        self._options = options

    @property
    def outputs(self) -> list[str]:
        """The names of the predicted columns, as far as they are known."""
        return []

    def inputs(self, names: list[str] | None) -> list[str] | None:
        """The columns to send of a file with these columns; None for all."""
        return list(self._options.columns) if self._options.columns else names

    def cells(self, inputs: list[str]) -> dict[str, Cell]:
        """What texts in CSV stand for, by the names of columns to send."""
        return dict.fromkeys(inputs, Cell.UNKNOWN)

    def score(self, rows: Rows, inputs: list[str] | None) -> Any:
        """The predicted columns of rows. Raises what `Client.predict` and `answers.table_of` raise."""
        if isinstance(rows, list):
            records = rows if inputs is None else [{name: row.get(name) for name in inputs} for row in rows]
            data: Any = {"dataframe_records": records}
        else:
            data = _frame(rows.select(inputs))
        options = self._options
        answer = self._client.predict(data, options.params, model=options.model or None, timeout_s=options.timeout_s)
        return table_of(answer, len(rows), {}, options.prefix)


class TypedCalls:
    """Calls of a model in its own types, with columns of values."""

    def __init__(self, client: Client, contract: Contract, options: CallOptions) -> None:
        self._model = client.model(options.model, timeout_s=options.timeout_s)
        self._fields = contract.row.fields
        self._by_name = contract.row.by_any_name
        self._sole_tensor = contract.row.sole_unnamed_field is not None and isinstance(
            contract.row.fields[0].shape, TensorShape
        )
        self._has_names = any(field.model_name for field in self._fields)
        self._types = types_of(contract.rpc(RpcKind.BATCH).response)
        self._options = options
        self._readers = {} if not self._has_names else {
            name: reader for name, field in self._by_name.items() if (reader := _text_reader(field)) is not None
        }  # fmt: skip

    @property
    def outputs(self) -> list[str]:
        """The names of the predicted columns."""
        return [self._options.prefix + name for name in self._types]

    def inputs(self, names: list[str] | None) -> list[str] | None:
        """The columns to send of a file with these columns; None for those of each row.

        Raises:
            InvalidUsage: The file lacks a column that the model needs.

        """
        chosen = list(self._options.columns) if self._options.columns else names
        if chosen is None:
            return list(dict.fromkeys(field.label for field in self._fields)) if self._has_names else None
        if not self._has_names:
            return chosen
        inputs = [name for name in chosen if name in self._by_name]
        sent = {self._by_name[name].name for name in inputs}
        missing = [field.label for field in self._fields if field.needs_value and field.name not in sent]
        if missing and names is not None:
            raise InvalidUsage(f"the model needs the column {missing[0]!r}; the columns are {', '.join(chosen)}")
        if not inputs:
            raise InvalidUsage(f"the model takes no column of {', '.join(chosen)}; it takes {', '.join(self._by_name)}")
        return inputs

    def cells(self, inputs: list[str]) -> dict[str, Cell]:
        """What texts in CSV stand for, by the names of columns to send."""
        if self._sole_tensor:
            return dict.fromkeys(inputs, Cell.UNKNOWN)
        if self._has_names:
            return {name: _cell(self._by_name[name]) for name in inputs}
        return {name: _cell(field) for name, field in zip(inputs, self._fields, strict=False)}

    def score(self, rows: Rows, inputs: list[str] | None) -> Any:
        """The predicted columns of rows. Raises what `TypedModel.predict_columns` and `answers.table_of` raise."""
        answer = self._model.predict_columns(self._data(rows, inputs), params=self._options.params)
        return table_of(
            dict(zip(self._types, answer.values(), strict=True)), len(rows), self._types, self._options.prefix
        )

    def _data(self, rows: Rows, inputs: list[str] | None) -> Any:
        if isinstance(rows, list) and self._has_names:
            columns = {name: self._values(name, [row.get(name, ABSENT) for row in rows]) for name in inputs or ()}
            # A column that no row has is left out. Rows without any value still count.
            present = {name: values for name, values in columns.items() if values.count(ABSENT) < len(values)}
            return present or [{} for _ in rows]
        if self._has_names:
            return {name: self._column(name, rows.column(name)) for name in inputs or ()}
        frame = _frame_of(rows, inputs) if isinstance(rows, list) or self._sole_tensor else None
        if frame is None:
            return dict(enumerate(rows.select(inputs).columns))
        if self._sole_tensor:
            lists = frame.iloc[:, 0].tolist()
            is_nested = frame.shape[1] == 1 and bool(lists) and not isinstance(lists[0], bool | int | float | str)
            return [_nested(value) for value in lists] if is_nested else frame.to_numpy()
        frame.columns = range(frame.shape[1])
        return frame

    def _column(self, name: str, column: Any) -> Any:
        """A column as it is in the file, or its values, if texts stand for something else."""
        return self._values(name, column.to_pylist()) if name in self._readers else column

    def _values(self, name: str, values: list[Any]) -> list[Any]:
        """The values of a column, read if texts stand for something else."""
        text_reader = self._readers.get(name)
        return values if text_reader is None else [_read(name, value, text_reader) for value in values]


Calls = JsonCalls | TypedCalls


def _frame(table: Any) -> Any:
    """A DataFrame of a table; integers beside nulls stay integers."""
    return table.to_pandas(integer_object_nulls=True, split_blocks=True, ignore_metadata=True)


def _frame_of(rows: Rows, inputs: list[str] | None) -> Any:
    """A DataFrame of a table or of rows of JSON lines."""
    if not isinstance(rows, list):
        return _frame(rows.select(inputs))
    # Imported late, because it takes half a second, and most runs do not need it.
    import pandas as pd

    return pd.DataFrame(rows, columns=inputs)


def _nested(value: Any) -> Any:
    """Lists of an array of arrays, which is how pandas has nested lists of Arrow."""
    return [_nested(item) for item in value] if hasattr(value, "__len__") and not isinstance(value, str) else value


def _cell(field: FieldShape) -> Cell:
    """What a text stands for in CSV."""
    if not isinstance(field.shape, ScalarShape) or not field.is_singular:
        return Cell.TEXT
    if field.shape.type in FLOATS:
        return Cell.DOUBLE
    if field.shape.type in INTEGER_BOUNDS:
        return Cell.INTEGER
    return Cell.BOOLEAN if field.shape.type == FieldDescriptor.TYPE_BOOL else Cell.TEXT


def _text_reader(field: FieldShape) -> Callable[[str], Any] | None:
    """The function that reads texts of a column whose values are not texts; None if there is no need."""
    if field.is_singular and isinstance(field.shape, ScalarShape):
        return _from_base64 if field.shape.type == FieldDescriptor.TYPE_BYTES else None
    is_text = isinstance(field.shape, TimestampShape | EnumShape | ValueShape)
    return None if field.is_singular and is_text else parsed_json


def _read(name: str, value: Any, reader: Callable[[str], Any]) -> Any:
    """A value, read if it is a text.

    Raises:
        ValueError: The text cannot be read.

    """
    if not isinstance(value, str):
        return value
    try:
        return reader(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error:
        raise ValueError("the model takes bytes, which are base64 in a text; this is not base64") from None
