"""Messages of any number of rows, in columns, into a model's input, and its predictions into such messages.

Rule of this module: numbers go from message to array and back without a Python object for each, where that changes
nothing; whatever is not certain goes value by value, as in messages of one row.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto
from google.protobuf.message import Message

from mlflow_grpc.contract.shapes import (
    BatchShape,
    Cardinality,
    ColumnShape,
    ScalarShape,
    Shape,
    TensorShape,
    TimestampShape,
)
from mlflow_grpc.contract.types import DataType
from mlflow_grpc.errors import FieldViolation, InvalidPayload
from mlflow_grpc.payload import timestamps
from mlflow_grpc.payload.codec import ModelInput, RecordCodec, Records
from mlflow_grpc.payload.protobuf.reader import Reader, label, nothing, refuse_unknown
from mlflow_grpc.payload.protobuf.record import TypedCodec
from mlflow_grpc.payload.protobuf.values import as_unwritable, is_nothing, unwritable
from mlflow_grpc.payload.protobuf.writer import extend, filler, put

if TYPE_CHECKING:
    from mlflow_grpc.payload.fast_json.decoders import PlainDecoder, PlainRows

_SAME: dict[int, tuple[str, ...]] = {
    Proto.TYPE_DOUBLE: ("float64", "float32"),
    Proto.TYPE_FLOAT: ("float32",),
    Proto.TYPE_BOOL: ("bool",),
    Proto.TYPE_INT32: ("int32", "int16", "int8"),
    Proto.TYPE_INT64: ("int64", "int32", "int16", "int8"),
}
"""The arrays whose numbers all stand in a field as they are."""

_TEXT = ScalarShape(Proto.TYPE_STRING, DataType.STRING)

_NUMBERS = {name for names in _SAME.values() for name in names}


class RowsCodec:
    """Reads the messages of many rows of one model and writes those of its output."""

    def __init__(self, one: TypedCodec, codec: RecordCodec, batch: BatchShape, output_class: type[Message]) -> None:
        """Args:
        one: Does the same for one row.
        codec: Takes records.
        batch: The messages.
        output_class: Of the output message.
        """
        self._one = one
        self._codec = codec
        self._columns = batch.inputs.columns
        self._is_closed = batch.inputs.is_closed
        self._outputs = batch.outputs.columns
        self._output_class = output_class
        self._reader = Reader(with_zone=codec.timestamps_have_timezone, refuses_missing=not codec.refuses_missing)
        self._is_tensor = len(self._outputs) == 1 and isinstance(self._outputs[0].field.shape, TensorShape)
        self._is_plain = not any(column.nulls for column in self._columns) and all(
            isinstance(column.field.shape, ScalarShape | TensorShape) for column in self._columns
        )

    def plain_rows(self, message: Any, decoder: "PlainDecoder") -> "PlainRows | None":
        """The rows of a message that has nothing but scalars or one tensor; None if they are not plain.

        Raises:
            InvalidPayload: The columns do not make up rows.

        """
        if not self._is_plain or self._one.has_unknown(message):
            return None
        count = self.count(message)
        columns = []
        for column in self._columns:
            found = getattr(message, column.field.name)
            if isinstance(column.field.shape, TensorShape):
                columns.append(self._reader.tensor(found, column.field.shape, count, column.field.name))
            elif column.field.shape == _TEXT:
                columns.append(list(found))
            else:
                columns.append(np.array(found))
        return decoder.columns(columns)

    def decode(self, message: Any) -> ModelInput:
        """What the model is to be given for a message.

        Raises:
            InvalidPayload: The columns do not make up rows, or hold what their types do not allow.
            InputRefused: A row does not fit; `explain` says why.

        """
        if self._is_closed:
            refuse_unknown(message, "")
        params = self._one.params(message)
        columns = self._arrays(message) if params is None else None
        decoded = self._codec.decode_columns(columns) if columns is not None else None
        decoded = decoded or self._codec.decode_records(self._records(message), params)
        return self._one.told(decoded, message)

    def _arrays(self, message: Any) -> dict[str, Any] | None:
        """The columns by name, as arrays and lists of texts, with what MLflow's parser has where there is no value.

        None if a column is none of scalars or points in time, or has nulls or values that such an array has not.
        """
        count = self.count(message)
        arrays: dict[str, Any] = {}
        for column in self._columns:
            field = column.field
            found = getattr(message, field.name)
            if (
                not field.source.name
                or field.cardinality is not Cardinality.REPEATED
                or not isinstance(field.shape, ScalarShape | TimestampShape)
            ):
                return None
            if not found:
                continue
            nulls = list(getattr(message, column.nulls)) if column.nulls else []
            if nulls and max(nulls) >= count:
                return None
            array = _array(found, field.shape, nulls)
            if array is None:
                return None
            arrays[field.source.name] = array
        return arrays

    def explain(self, message: Any, cause: BaseException | None) -> InvalidPayload:
        """Finds the words for a refusal."""
        return self._codec.explain_records(self._records(message), self._one.params(message), cause)

    def count(self, message: Any) -> int:
        """How many rows a message has.

        Raises:
            InvalidPayload: It has none, or columns of different lengths.

        """
        counts = {label(column.field): self._count(message, column) for column in self._columns}
        most = max(counts.values())
        if not most:
            _refuse(
                {label(column.field): "has no rows" for column in self._columns if not column.nulls},
                "there are no rows",
            )
        wrong = {
            name: f"has {counts[name]} rows"
            for name, column in zip(counts, self._columns, strict=True)
            if counts[name] != most and (counts[name] or column.field.source.needs_value)
        }
        if wrong:
            _refuse(wrong, f"each column must have an entry for each of {most} rows")
        return most

    def _count(self, message: Any, column: ColumnShape) -> int:
        found = getattr(message, column.field.name)
        if not isinstance(column.field.shape, TensorShape) or column.field.cardinality is Cardinality.REPEATED:
            return len(found)
        if found.shape:
            return int(found.shape[0])
        size = math.prod(column.field.shape.shape)
        return len(found.data) // size if size > 0 else 0

    def _records(self, message: Any) -> Records:
        count = self.count(message)
        columns: dict[str, Any] = {}
        for column in self._columns:
            field = column.field
            found = getattr(message, field.name)
            where = label(field)
            if isinstance(field.shape, TensorShape) and field.cardinality is Cardinality.SINGULAR:
                if message.HasField(field.name):
                    columns[field.source.name or field.name] = self._reader.tensor(found, field.shape, count, where)
                continue
            if not found:
                if field.source.is_null_if_absent:
                    columns[field.source.name or field.name] = [nothing(field)] * count
                continue
            nulls = set(getattr(message, column.nulls)) if column.nulls else set()
            if nulls and max(nulls) >= count:
                _refuse({column.nulls: f"names row {max(nulls)}"}, f"there are {count} rows, counted from 0")
            columns[field.source.name or field.name] = self._reader.column(found, field, nulls, where)
        return Records(columns, count)

    def encode(self, predictions: Any, count: int) -> Message:
        """The output message for the predictions for so many rows.

        It has as many rows as the model gives: for a forecast these may be more, or fewer.

        Raises:
            UnwritableAnswer: They are not what the model's output says, or no rows.

        """
        with as_unwritable():
            return self._encoded(predictions, count)

    def _encoded(self, predictions: Any, count: int) -> Message:
        output = self._output_class()
        # A Series of numpy's own types; pandas need not be there for a model that gives none.
        is_series = isinstance(getattr(predictions, "dtype", None), np.dtype) and hasattr(predictions, "to_numpy")
        whole = predictions.to_numpy() if is_series and not self._is_tensor else predictions
        if type(whole) is np.ndarray and whole.ndim and len(whole) == count and self._put_array(output, whole):
            return output
        rows = self._codec.rows(predictions, count)
        records = [self._as_record(row) for row in rows]
        names = [column.field.source.name or column.field.name for column in self._outputs]
        for column, name in zip(self._outputs, names, strict=True):
            self._put(output, column, [record.pop(name, None) for record in records], name)
        if rest := next(filter(None, records), None):
            unwritable("the output", f"the fields {', '.join(map(str, rest))}, which the schema does not have")
        return output

    def _as_record(self, row: Any) -> dict[str, Any]:
        record = self._one.as_record(row)
        if not isinstance(record, dict):
            unwritable("a row", f"a value of type {type(record).__name__}")
        return dict(record)

    def _put_array(self, output: Any, array: Any) -> bool:
        """Writes an array as it is, if its numbers are those of the fields; whether they are."""
        if len(self._outputs) == 1 and (array.ndim == 1 or self._outputs[0].field.cardinality is Cardinality.SINGULAR):
            columns = [array]
        elif array.shape[1:] == (len(self._outputs),):
            columns = list(array.T)
        else:
            return False
        pairs = list(zip(self._outputs, columns, strict=True))
        if not all(_stands_as_it_is(values, column.field.shape) for column, values in pairs):
            return False
        for column, values in pairs:
            if isinstance(column.field.shape, TensorShape):
                put(output, column.field, values, column.field.source.name)
            else:
                getattr(output, column.field.name).extend(values.tolist())
        return True

    def _put(self, output: Any, column: ColumnShape, values: Sequence[Any], where: str) -> None:
        field = column.field
        if field.cardinality is Cardinality.SINGULAR:
            put(output, field, values, where)
            return
        getattr(output, column.nulls).extend(place for place, value in enumerate(values) if is_nothing(value))
        extend(getattr(output, field.name), field.shape, values, where, filler=filler(field.shape))


def _array(found: Any, shape: ScalarShape | TimestampShape, nulls: list[int]) -> Any:
    """A column of a message; None if its values or nulls have no array or list that MLflow's parser would make too."""
    if isinstance(shape, TimestampShape):
        array = timestamps.column([each.seconds for each in found], [each.nanos for each in found], nulls)
    elif shape.type == Proto.TYPE_STRING:
        array = list(found)
        for place in nulls:
            array[place] = None
    elif nulls and shape.type not in (Proto.TYPE_DOUBLE, Proto.TYPE_FLOAT):
        return None
    elif shape.type == Proto.TYPE_BYTES:
        return list(found)
    else:
        array = np.array(found)
        if nulls:
            array[nulls] = np.nan
    return array


def _stands_as_it_is(values: Any, shape: Shape) -> bool:
    """Whether an array can be written without a look at each value."""
    if isinstance(shape, TensorShape):
        return bool(values.dtype.name == shape.dtype and shape.dtype in _NUMBERS)
    return isinstance(shape, ScalarShape) and values.dtype.name in _SAME.get(shape.type, ())


def _refuse(wrong: dict[str, str], what: str) -> NoReturn:
    raise InvalidPayload(
        f"The columns do not make up rows: {what}.",
        reason="INVALID_PARAMETER_VALUE",
        violations=tuple(FieldViolation(name, words) for name, words in wrong.items()),
    )
