"""Conversion of messages with any number of rows, in columns, and of predictions into such messages.

Rule of this module: numbers go from message to array and back without a Python object for each, if that changes no
value. Everything else is converted value by value, as in messages of one record.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from _mlflow_grpc_protocol.scalars import FLOATS, row_filler, try_extend
from _mlflow_grpc_protocol.shapes import FieldShape, ScalarShape, Shape, TensorShape, TimestampShape
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto
from google.protobuf.message import Message

from mlflow_grpc.contract.shapes import BatchShape
from mlflow_grpc.errors import FieldViolation, InvalidPayload
from mlflow_grpc.payload import timestamps
from mlflow_grpc.payload.codec import ModelInput, RecordCodec, Records
from mlflow_grpc.payload.protobuf.reader import Reader, missing_value, refuse_unknown
from mlflow_grpc.payload.protobuf.record import TypedCodec
from mlflow_grpc.payload.protobuf.values import as_unwritable, is_nothing, unwritable
from mlflow_grpc.payload.protobuf.writer import extend, write_field

if TYPE_CHECKING:
    from mlflow_grpc.payload.fast_json.fast_decoder import FastDecoder, RowBlock

_NATIVE_DTYPES: dict[int, tuple[str, ...]] = {
    Proto.TYPE_DOUBLE: ("float64", "float32"),
    Proto.TYPE_FLOAT: ("float32",),
    Proto.TYPE_BOOL: ("bool",),
    Proto.TYPE_INT32: ("int32", "int16", "int8"),
    Proto.TYPE_INT64: ("int64", "int32", "int16", "int8"),
}
"""Names of the dtypes whose values a field stores unchanged, by the field's protobuf type."""

_TENSOR_DTYPES = {name for names in _NATIVE_DTYPES.values() for name in names}


class RowsCodec:
    """Reads messages of many rows for one model, and writes those of its output."""

    def __init__(self, single: TypedCodec, codec: RecordCodec, batch: BatchShape, output_class: type[Message]) -> None:
        """Takes the codec for one record, which converts params and single predictions.

        Args:
            single: Codec for messages of one record.
            codec: Codec that takes records.
            batch: Shapes of the messages.
            output_class: Class of the output message.

        """
        self._single = single
        self._codec = codec
        self._columns = batch.inputs.fields
        self._is_closed = batch.inputs.is_closed
        self._outputs = batch.outputs.fields
        self._output_class = output_class
        self._reader = Reader(with_zone=codec.timestamps_have_timezone, refuses_missing=not codec.refuses_missing)
        self._is_tensor = len(self._outputs) == 1 and isinstance(self._outputs[0].shape, TensorShape)
        self._fits_fast_path = all(isinstance(column.shape, ScalarShape | TensorShape) for column in self._columns)

    def fast_path_rows(self, message: Any, decoder: "FastDecoder") -> "RowBlock | None":
        """Reads the rows of a message that has only scalars or one tensor; None if the fast path does not apply.

        Raises:
            InvalidPayload: The columns have different lengths, or no rows.

        """
        if not self._fits_fast_path or self._single.has_unknown(message) or self._single.params(message) is not None:
            return None
        count = self.count(message)
        columns = []
        for column in self._columns:
            values = getattr(message, column.name)
            if isinstance(column.shape, TensorShape):
                columns.append(self._reader.tensor(values, column.shape, count, column.name))
            elif len(values) < count or (column.null_rows and getattr(message, column.null_rows)):
                return None
            elif isinstance(column.shape, ScalarShape) and column.shape.type == Proto.TYPE_STRING:
                columns.append(list(values))
            else:
                columns.append(np.array(values))
        return decoder.columns(columns)

    def decode(self, message: Any) -> ModelInput:
        """Reads a message into model input.

        Raises:
            InvalidPayload: The columns have different lengths, or a value is invalid for its type.
            InputRejected: A row does not fit; `explain` says why.

        """
        if self._is_closed:
            refuse_unknown(message, "")
        params = self._single.params(message)
        arrays = self._arrays(message) if params is None else None
        decoded = self._codec.decode_columns(arrays) if arrays is not None else None
        decoded = decoded or self._codec.decode_records(self._records(message), params)
        return self._single.with_ignored_fields(decoded, message)

    def _arrays(self, message: Any) -> dict[str, Any] | None:
        """Reads the columns as arrays, or lists for text, by name; a row without a value has what MLflow's parser uses.

        Returns None if a column is neither of scalars nor of timestamps, or has nulls or values that no such array can
        hold.
        """
        count = self.count(message)
        arrays: dict[str, Any] = {}
        for column in self._columns:
            shape, values = column.shape, getattr(message, column.name)
            if not column.model_name or not column.is_repeated or not isinstance(shape, ScalarShape | TimestampShape):
                return None
            if not values:
                continue
            nulls = list(getattr(message, column.null_rows)) if column.null_rows else []
            if nulls and max(nulls) >= count:
                return None
            array = _array(values, shape, nulls)
            if array is None:
                return None
            arrays[column.model_name] = array
        return arrays

    def explain(self, message: Any, cause: BaseException | None) -> InvalidPayload:
        """Makes the error for a message that `decode` or the model's own checks refused."""
        return self._codec.explain_records(self._records(message), self._single.params(message), cause)

    def count(self, message: Any) -> int:
        """Counts the rows of a message.

        Raises:
            InvalidPayload: The message has no rows, or its columns have different lengths.

        """
        counts = {column.label: self._column_length(message, column) for column in self._columns}
        row_count = max(counts.values())
        if not row_count:
            _refuse(
                {column.label: "has no rows" for column in self._columns if not column.null_rows},
                "there are no rows",
            )
        problems = {
            name: f"has {counts[name]} rows"
            for name, column in zip(counts, self._columns, strict=True)
            if counts[name] != row_count and (counts[name] or column.needs_value)
        }
        if problems:
            _refuse(problems, f"each column must have an entry for each of {row_count} rows")
        return row_count

    def _column_length(self, message: Any, column: FieldShape) -> int:
        values = getattr(message, column.name)
        if not isinstance(column.shape, TensorShape) or column.is_repeated:
            return len(values)
        if values.shape:
            return int(values.shape[0])
        size = math.prod(column.shape.shape)
        return len(values.data) // size if size > 0 else 0

    def _records(self, message: Any) -> Records:
        count = self.count(message)
        columns: dict[str, Any] = {}
        for column in self._columns:
            values = getattr(message, column.name)
            if isinstance(column.shape, TensorShape) and column.is_singular:
                if message.HasField(column.name):
                    columns[column.label] = self._reader.tensor(values, column.shape, count, column.label)
                continue
            if not values:
                if column.is_null_if_absent:
                    columns[column.label] = [missing_value(column)] * count
                continue
            nulls = set(getattr(message, column.null_rows)) if column.null_rows else set()
            if nulls and max(nulls) >= count:
                _refuse({column.null_rows: f"names row {max(nulls)}"}, f"there are {count} rows, counted from 0")
            columns[column.label] = self._reader.column(values, column, nulls, column.label)
        return Records(columns, count)

    def encode(self, predictions: Any, count: int) -> Message:
        """Makes the output message from the predictions for `count` rows.

        The output has as many rows as the model returned. A forecast may return more rows than it got, or fewer.

        Raises:
            UnserializableOutput: The predictions have no rows, or do not fit the model's output schema.

        """
        with as_unwritable():
            return self._encode(predictions, count)

    def _encode(self, predictions: Any, count: int) -> Message:
        output = self._output_class()
        # Recognized by its attributes, because pandas need not be installed for a model that returns no Series.
        is_series = isinstance(getattr(predictions, "dtype", None), np.dtype) and hasattr(predictions, "to_numpy")
        array = predictions.to_numpy() if is_series and not self._is_tensor else predictions
        if type(array) is np.ndarray and array.ndim and len(array) == count and self._write_array(output, array):
            return output
        columns = self._codec.columns(predictions)
        if columns is not None and self._write_columns(output, columns):
            return output
        rows = self._codec.rows(predictions, count)
        records = [self._as_record(row) for row in rows]
        for column in self._outputs:
            self._write_column(output, column, [record.pop(column.label, None) for record in records])
        if unexpected := next(filter(None, records), None):
            unwritable("the output", f"the fields {', '.join(map(str, unexpected))}, which the schema does not have")
        return output

    def _as_record(self, row: Any) -> dict[str, Any]:
        record = self._single.as_record(row)
        if not isinstance(record, dict):
            unwritable("a row", f"a value of type {type(record).__name__}")
        return dict(record)

    def _write_array(self, output: Any, array: Any) -> bool:
        """Writes an array unchanged; returns False, with nothing written, if its shape or types are not the fields'."""
        if len(self._outputs) == 1 and (array.ndim == 1 or self._outputs[0].is_singular):
            columns = [array]
        elif array.shape[1:] == (len(self._outputs),):
            columns = list(array.T)
        else:
            return False
        pairs = list(zip(self._outputs, columns, strict=True))
        if not all(_is_native(values, column.shape) for column, values in pairs):
            return False
        for column, values in pairs:
            if isinstance(column.shape, TensorShape):
                write_field(output, column, values, column.model_name)
            else:
                getattr(output, column.name).extend(values.tolist())
        return True

    def _write_columns(self, output: Any, columns: dict[str, Any]) -> bool:
        """Writes columns unchanged; returns False, with nothing written, if one has no rows or a type of another field.

        Args:
            output: The empty message.
            columns: Result of `RecordCodec.columns`.

        """
        for column in self._outputs:
            values, field = columns.get(column.label), getattr(output, column.name)
            if isinstance(values, np.ndarray) and len(values) and _is_native(values, column.shape):
                field.extend(values.tolist())
            elif isinstance(values, list) and values and column.shape == ScalarShape(Proto.TYPE_STRING):
                getattr(output, column.null_rows).extend(row for row, value in enumerate(values) if value is None)
                if not try_extend(field, ["" if value is None else value for value in values]):
                    break
            else:
                break
        else:
            return True
        output.Clear()
        return False

    def _write_column(self, output: Any, column: FieldShape, values: Sequence[Any]) -> None:
        if column.is_singular:
            write_field(output, column, values, column.label)
            return
        getattr(output, column.null_rows).extend(row for row, value in enumerate(values) if is_nothing(value))
        extend(getattr(output, column.name), column.shape, values, column.label, filler=row_filler(column.shape))


def _array(values: Any, shape: ScalarShape | TimestampShape, nulls: list[int]) -> Any:
    """Converts a column to the array or list that MLflow's parser makes; None if no array holds the column exactly."""
    if isinstance(shape, TimestampShape):
        array = timestamps.column([value.seconds for value in values], [value.nanos for value in values], nulls)
    elif shape.type == Proto.TYPE_STRING:
        array = list(values)
        for row in nulls:
            array[row] = None
    elif nulls and shape.type not in FLOATS:
        return None
    elif shape.type == Proto.TYPE_BYTES:
        return list(values)
    else:
        array = np.array(values)
        if nulls:
            array[nulls] = np.nan
    return array


def _is_native(values: Any, shape: Shape) -> bool:
    """Returns True if a field stores all values of the array's dtype unchanged."""
    if isinstance(shape, TensorShape):
        return bool(values.dtype.name == shape.dtype and shape.dtype in _TENSOR_DTYPES)
    return isinstance(shape, ScalarShape) and values.dtype.name in _NATIVE_DTYPES.get(shape.type, ())


def _refuse(problems: dict[str, str], summary: str) -> NoReturn:
    raise InvalidPayload(
        f"The columns do not make up rows: {summary}.",
        reason="INVALID_PARAMETER_VALUE",
        violations=tuple(FieldViolation(name, problem) for name, problem in problems.items()),
    )
