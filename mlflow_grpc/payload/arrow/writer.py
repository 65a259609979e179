"""Conversion of predictions to record batches, and of these to messages.

Rule of this module: arrays of numbers become columns without a Python object for each value. All other predictions are
read as rows, and a value that its Arrow type does not hold exactly is an error.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from _mlflow_grpc_protocol.arrow_ipc import END_OF_STREAM, encapsulated, pieces_of, within
from _mlflow_grpc_protocol.flight_data import ENVELOPE_BYTES

from mlflow_grpc.contract.types import AnyValue, Contract, Field, MapOf, Record, Scalar, Tensor, Union
from mlflow_grpc.errors import UnserializableOutput
from mlflow_grpc.payload.arrow import cells, predicates, types
from mlflow_grpc.payload.codec import PLAIN_INPUT, Codec, RecordCodec
from mlflow_grpc.payload.protobuf.values import as_unwritable, is_list, unwritable

OUTPUT_NAME = "prediction"
"""Name of the only column of an answer if the model does not name it."""

_NATIVE_KINDS = "biufM"
"""Kinds of dtypes whose arrays become columns at once: booleans, numbers and points in time."""


@dataclass(frozen=True, slots=True)
class TableAnswer:
    """The answer to one batch."""

    batch: pa.RecordBatch
    messages: list[tuple[bytes, memoryview]]
    """Header and body of the messages that carry it."""

    def stream(self) -> bytes:
        """Returns the answer as a complete stream."""
        schema = self.batch.schema.serialize().to_pybytes()
        pieces = [piece for header, body in self.messages for piece in encapsulated(header, body)]
        return b"".join([schema, *pieces, END_OF_STREAM])


class TableWriter:
    """Writes the predictions of one model."""

    def __init__(self, codec: Codec, contract: Contract, max_message_bytes: int) -> None:
        """Chooses the schema of the answers.

        Args:
            codec: The model's codec.
            contract: The model's outputs.
            max_message_bytes: Size of a message above which a batch is split, in bytes.

        """
        self._codec = codec
        self._max_bytes = max_message_bytes
        self._fields: list[Field] = []
        self.schema: pa.Schema | None = None
        """Schema of all answers; None if it follows from the first one, because the model declares no outputs."""
        if contract.outputs is not None and isinstance(codec, RecordCodec):
            self._with_zone = codec.timestamps_have_timezone
            self._records = codec
            self._fields = types.fields_of(contract.outputs, OUTPUT_NAME)
            self.schema = types.schema_of(self._fields, with_zone=self._with_zone)
            self._is_bare = isinstance(contract.outputs, Tensor) or not all(f.name for f in contract.outputs.fields)

    def encode(self, predictions: Any, count: int) -> TableAnswer:
        """Makes the answer from the predictions for `count` rows.

        Raises:
            UnserializableOutput: The predictions have no rows, or do not fit the model's output schema.

        """
        with as_unwritable():
            batch = self._declared(predictions, count) if self.schema is not None else self._inferred(predictions)
            return TableAnswer(batch, list(self.messages(batch)))

    def messages(self, batch: pa.RecordBatch) -> Iterator[tuple[bytes, memoryview]]:
        """Yields the messages of a batch; rows that exceed the limit of a message are split."""
        for rows in within(batch, self._max_bytes - ENVELOPE_BYTES, pa.ipc.get_record_batch_size):
            yield pieces_of(memoryview(rows.serialize()))

    def _declared(self, predictions: Any, count: int) -> pa.RecordBatch:
        columns = self._native_columns(predictions)
        if columns is None:
            columns = self._columns_of_rows(predictions, count)
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _native_columns(self, predictions: Any) -> list[pa.Array] | None:
        """Returns arrays of numbers as columns; None if their shape or types are not those of the schema."""
        named = _arrays_by_name(predictions)
        if named is None:
            sources = _arrays_of(predictions, len(self._fields))
        elif named.keys() == {column.name for column in self._fields}:
            sources = [named[column.name] for column in self._fields]
        else:
            return None
        if sources is None:
            return None
        columns = [_native(source, column) for source, column in zip(sources, self._fields, strict=True)]
        return None if any(column is None for column in columns) else columns

    def _columns_of_rows(self, predictions: Any, count: int) -> list[pa.Array]:
        records = [self._as_record(row) for row in self._records.rows(predictions, count)]
        columns = []
        for column in self._fields:
            column_cells = [record.pop(column.name, None) for record in records]
            columns.append(cells.array_of(column_cells, column, with_zone=self._with_zone))
        if unexpected := next(filter(None, records), None):
            unwritable("the output", f"the fields {', '.join(map(str, unexpected))}, which the schema does not have")
        return columns

    def _as_record(self, row: Any) -> dict[str, Any]:
        """Converts a predicted row to a record by output name; a list has a value for each output."""
        names = [column.name for column in self._fields]
        if len(names) > 1:
            if isinstance(row, dict):
                return dict(row)
            if not is_list(row) or len(row) != len(names):
                unwritable("a row", f"no value for each of {len(names)} outputs")
            return dict(zip(names, row, strict=True))
        (name,) = names
        type_ = self._fields[0].type
        takes_objects = isinstance(type_, MapOf | Record | AnyValue | Union)
        if isinstance(row, dict) and not self._is_bare and (row.keys() == {name} or not takes_objects):
            return dict(row)
        if is_list(row) and len(row) == 1 and isinstance(type_, Scalar):
            return {name: row[0]}
        return {name: row}

    def _inferred(self, predictions: Any) -> pa.RecordBatch:
        """Makes a batch of what the model returned; values other than numbers are those of MLflow's JSON."""
        named = _arrays_by_name(predictions)
        if named is None and (sources := _arrays_of(predictions, 1)) is not None:
            named = {OUTPUT_NAME: sources[0]}
        if named:
            return pa.RecordBatch.from_pydict({str(name): _arrow_of(source) for name, source in named.items()})
        rows = json.loads(self._codec.encode(predictions, PLAIN_INPUT))
        rows = rows.get("predictions", rows) if isinstance(rows, dict) else rows
        rows = rows if isinstance(rows, list) else [rows]
        if rows and all(isinstance(row, dict) for row in rows):
            names = dict.fromkeys(name for row in rows for name in row)
            return pa.RecordBatch.from_pydict({name: cells.inferred([row.get(name) for row in rows]) for name in names})
        return pa.RecordBatch.from_pydict({OUTPUT_NAME: cells.inferred(rows)})


def as_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Returns a batch in the schema of the answers before it.

    Raises:
        UnserializableOutput: The columns differ, or a value does not fit its type.

    """
    try:
        return batch.select(schema.names).cast(schema) if set(batch.schema.names) == set(schema.names) else _differ()
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise UnserializableOutput(_DIFFERENT) from error


_DIFFERENT = (
    "The model's answers to two batches have different columns or types, and a stream has only one schema. Log the "
    "model with a signature that declares its outputs."
)


def _differ() -> pa.RecordBatch:
    raise UnserializableOutput(_DIFFERENT)


def _arrays_by_name(predictions: Any) -> dict[str, Any] | None:
    """Returns the columns of a DataFrame of numbers; None for anything else."""
    if not isinstance(predictions, pd.DataFrame) or not predictions.columns.is_unique or not len(predictions.columns):
        return None
    if not all(isinstance(dtype, np.dtype) and dtype.kind in _NATIVE_KINDS for dtype in predictions.dtypes):
        return None
    if not all(isinstance(name, str) for name in predictions.columns):
        return None
    return {name: predictions[name].to_numpy() for name in predictions.columns}


def _arrays_of(predictions: Any, width: int) -> list[Any] | None:
    """Returns an array of numbers as columns: one of any shape, or the columns of a matrix; None for anything else."""
    if isinstance(predictions, pd.Series) and isinstance(predictions.dtype, np.dtype):
        predictions = predictions.to_numpy()
    if type(predictions) is not np.ndarray or not predictions.ndim or predictions.dtype.kind not in _NATIVE_KINDS:
        return None
    if width == 1:
        return [predictions]
    return list(predictions.T) if predictions.shape[1:] == (width,) else None


def _native(source: Any, column: Field) -> pa.Array | None:
    """Returns an array of numbers as a column; None if the column's type does not hold all its values exactly."""
    if isinstance(column.type, Tensor):
        shape = types.row_shape(column.type)
        fits = len(shape) == source.ndim - 1 and all(
            expected in (-1, size) for expected, size in zip(shape, source.shape[1:], strict=True)
        )
        if not fits or np.dtype(column.type.dtype) != source.dtype:
            return None
        return _nested(source, types.arrow_type(types.row_type(column.type), with_zone=False))
    if not isinstance(column.type, Scalar) or column.type.format:
        return None
    if source.ndim == 2 and source.shape[1] == 1:  # noqa: PLR2004 - a matrix of one column
        source = source[:, 0]
    arrow = types.arrow_type(column.type, False)
    if source.ndim != 1 or source.dtype.kind == "M" or (not predicates.is_numeric(arrow) and arrow != pa.bool_()):
        return None
    dtype = np.dtype(arrow.to_pandas_dtype())
    is_exact = source.dtype == dtype or (
        source.dtype.kind == dtype.kind and np.can_cast(source.dtype, dtype, "safe") and dtype.kind in "if"
    )
    return pa.array(np.ascontiguousarray(source, dtype=dtype)) if is_exact else None


def _arrow_of(source: Any) -> pa.Array:
    return _nested(source, None)


def _nested(source: Any, arrow: pa.DataType | None) -> pa.Array:
    """Returns an array as a column, with nested lists for its further dimensions.

    Args:
        source: The array.
        arrow: Type of the column; by default with lists of a fixed size.

    """
    native = source.astype(source.dtype.newbyteorder("="), copy=False)  # Arrow has one order of bytes.
    column = pa.array(np.ascontiguousarray(native).reshape(-1))
    sizes = source.shape[1:]
    for depth, size in reversed(list(enumerate(sizes))):
        count = int(np.prod(source.shape[: depth + 1], dtype=np.int64))
        if arrow is not None and pa.types.is_list(_at_depth(arrow, depth)):
            column = pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32) * size, column)
        else:
            column = pa.FixedSizeListArray.from_arrays(column, size)
    return column


def _at_depth(arrow: pa.DataType, depth: int) -> pa.DataType:
    for _ in range(depth):
        arrow = arrow.value_type
    return arrow
