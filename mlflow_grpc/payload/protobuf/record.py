"""Conversion of messages with one record, and of the prediction for it into an output message.

Rule of this module: it tells record, params and output apart. `reader` and `writer` convert the values, and
`mlflow_grpc.contract.messages` defines the messages.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

import numpy as np
from _mlflow_grpc_protocol.scalars import NATIVE_TYPES
from _mlflow_grpc_protocol.shapes import (
    EnumShape,
    FieldShape,
    MessageShape,
    OneofShape,
    ScalarShape,
    TensorShape,
    TimestampShape,
    ValueShape,
    WrapperShape,
)
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto
from google.protobuf.message import Message as ProtoMessage

from mlflow_grpc.contract.shapes import ModelMessages
from mlflow_grpc.contract.types import Contract, Tensor, row_of
from mlflow_grpc.errors import InvalidPayload
from mlflow_grpc.payload.codec import ModelInput, RecordCodec
from mlflow_grpc.payload.protobuf import unknown_fields
from mlflow_grpc.payload.protobuf.reader import Reader
from mlflow_grpc.payload.protobuf.values import as_unwritable, is_list, unwritable
from mlflow_grpc.payload.protobuf.writer import fill

_FIXED_SIZES: dict[int, int] = {Proto.TYPE_DOUBLE: 8, Proto.TYPE_FLOAT: 4, Proto.TYPE_BOOL: 1}
"""Size of a value on the wire, in bytes, by the field's protobuf type, if it is the same for all values."""


class TypedCodec:
    """Reads input messages of one model, and writes messages of its output."""

    def __init__(
        self, codec: RecordCodec, contract: Contract, messages: ModelMessages, output_class: type[ProtoMessage]
    ) -> None:
        """Finds out which messages the fast path can read.

        Args:
            codec: Codec that takes records.
            contract: Input and output types of the model.
            messages: Shapes of the model's messages.
            output_class: Class of the output message.

        """
        self._codec = codec
        self._messages = messages
        self._output_class = output_class
        self._is_array = isinstance(contract.inputs, Tensor)
        self._tensors = _batched_tensors(contract)
        self._reader = Reader(with_zone=codec.timestamps_have_timezone, refuses_missing=not codec.refuses_missing)
        self._is_bare = not self._has_named_output(contract)
        self._only_scalar = _only_scalar(messages.output.fields) if self._is_bare else None
        fields = messages.input.fields
        has_only_scalars = messages.params is None and all(_is_scalar(field) for field in fields)
        self._scalars = _Scalars(fields) if has_only_scalars and fields else None
        self._is_flat = messages.params is None and all(
            isinstance(field.shape, ScalarShape | EnumShape) and not field.is_map for field in fields
        )

    @staticmethod
    def _has_named_output(contract: Contract) -> bool:
        outputs = contract.outputs
        return outputs is not None and not isinstance(outputs, Tensor) and all(field.name for field in outputs.fields)

    def fast_path_values(self, message: Any) -> Sequence[Any] | None:
        """Returns the values of a message with only scalars, or the elements of its array.

        Returns None if the message lacks a value, or has anything else.
        """
        if self._is_array:
            field = self._messages.input.fields[0]
            if unknown_fields.at_top_level(message):
                return None
            if not isinstance(field.shape, TensorShape):
                return [getattr(message, field.name)] if message.HasField(field.name) else None
            tensor = getattr(message, field.name)
            if unknown_fields.at_top_level(tensor):
                return None
            return list(tensor.data) if not tensor.shape or tuple(tensor.shape) == field.shape.shape else None
        if self._scalars is None or unknown_fields.at_top_level(message) or not self._scalars.are_set(message):
            return None
        return self._scalars.values(message)

    def decode(self, message: Any) -> ModelInput:
        """Reads a message into model input.

        Raises:
            InvalidPayload: The record does not fit, or a value is invalid for its type.
            InputRejected: The record does not fit; `explain` says why.

        """
        return self.with_ignored_fields(self._codec.decode_record(*self._record(message)), message)

    def has_unknown(self, message: Any) -> bool:
        """Returns True if a message for one record, or for many rows, has a field that its type does not have."""
        return unknown_fields.at_top_level(message) if self._is_flat else unknown_fields.at_any_level(message)

    def with_ignored_fields(self, decoded: ModelInput, message: Any) -> ModelInput:
        """Adds the numbers of a message's unknown fields to the model input made from it.

        Args:
            decoded: Model input made from the message.
            message: The message.

        Raises:
            InvalidPayload: The message has unknown fields, and the server refuses them.

        """
        if not self.has_unknown(message):
            return decoded
        return replace(decoded, ignored=self._codec.unknown.check(unknown_fields.paths(message)))

    def explain(self, message: Any, cause: BaseException | None) -> InvalidPayload:
        """Makes the error for a message that `decode` or the model's own checks refused."""
        return self._codec.explain_record(*self._record(message), cause)

    def encode(self, predictions: Any) -> ProtoMessage:
        """Makes the output message from the prediction for one record.

        Raises:
            UnserializableOutput: The predictions do not fit the output schema, or are not for one record.

        """
        output = self._output_class()
        if self._only_scalar is not None and is_list(predictions) and len(predictions) == 1:
            name, value_type = self._only_scalar
            value = predictions[0].item() if isinstance(predictions[0], np.generic) else predictions[0]
            if type(value) is value_type:
                try:
                    setattr(output, name, value)
                except ValueError:
                    pass  # An integer past 64 bits or a lone surrogate, which raises again below with a better message.
                else:
                    return output
        with as_unwritable():
            fill(output, self._messages.output, self.as_record(self._codec.value(predictions)), "")
        return output

    def encode_error(self, error: ProtoMessage) -> ProtoMessage:
        """Makes an output message that holds only an error."""
        return self._output_class(**{self._messages.error_field: error})

    def as_record(self, value: Any) -> Any:
        """Converts a prediction to a record by output name.

        A list has a value for each output. Any other value is returned unchanged, unless there is only one output.
        """
        fields = self._messages.output.fields
        if len(fields) == 1:
            return self._as_single_field_record(fields[0], value)
        if not is_list(value):
            return value
        values = list(value)
        if len(values) != len(fields):
            unwritable("output", f"{len(values)} values for {len(fields)} fields")
        return {field.label: item for field, item in zip(fields, values, strict=True)}

    def _as_single_field_record(self, field: FieldShape, value: Any) -> dict[str, Any]:
        """Converts a prediction for the only output, which is a record, a bare value or the only column of a table."""
        name = field.label
        if isinstance(value, dict) and not self._is_bare and (value.keys() <= {name} or not _takes_objects(field)):
            return value
        if is_list(value) and len(value) == 1 and _is_single(field):
            return {name: value[0]}
        return {name: value}

    def params(self, message: Any) -> dict[str, Any] | None:
        """Reads the params that are set; None if the message has no params."""
        if self._messages.params is None or not message.HasField(self._messages.params_field):
            return None
        return self._reader.record(getattr(message, self._messages.params_field), self._messages.params, "params")

    def _record(self, message: Any) -> tuple[Any, dict[str, Any] | None]:
        params = self.params(message)
        record = self._reader.record(message, self._messages.input, "")
        for name in self._tensors & record.keys():
            record[name] = np.asarray(record[name])[np.newaxis]
        return (np.asarray(record["value"]) if self._is_array else record), params


class _Scalars:
    """The scalar fields of a message."""

    def __init__(self, fields: list[FieldShape]) -> None:
        self._count = len(fields)
        self._size = _size_if_set(fields)
        self.values: Callable[[Any], tuple[Any, ...]]
        """Returns the value of each field of a message, in the order of the fields."""
        if len(fields) == 1:
            (name,) = (field.name for field in fields)
            self.values = lambda message: (getattr(message, name),)
        else:
            self.values = attrgetter(*(field.name for field in fields))

    def are_set(self, message: Any) -> bool:
        """Returns True if all fields of a message without unknown fields are set."""
        if self._size is not None:
            return bool(message.ByteSize() == self._size)
        return len(message.ListFields()) == self._count


def _size_if_set(fields: list[FieldShape]) -> int | None:
    """Returns the size of a message whose fields are all set, in bytes; None if that depends on the values."""
    sizes = [_FIXED_SIZES.get(field.shape.type) if isinstance(field.shape, ScalarShape) else None for field in fields]
    if any(size is None for size in sizes):
        return None
    # The tag before a value is a varint of the field's number and three bits for the wire type.
    tag_sizes = [(field.number.bit_length() + 3 + 6) // 7 for field in fields]
    return sum(tag_sizes) + sum(size for size in sizes if size is not None)


def _batched_tensors(contract: Contract) -> set[str]:
    """Returns the names of the fields whose tensors have rows as their first dimension."""
    if isinstance(contract.inputs, Tensor):
        return {"value"} if row_of(contract.inputs) != contract.inputs else set()
    fields = contract.inputs.fields if contract.inputs is not None else []
    return {field.name for field in fields if isinstance(field.type, Tensor) and row_of(field.type) != field.type}


def _only_scalar(fields: list[FieldShape]) -> tuple[str, type] | None:
    """Returns the name of the only field and the Python type that it stores unchanged; None if it is not a scalar."""
    if len(fields) != 1 or not _is_scalar(fields[0]) or not isinstance(fields[0].shape, ScalarShape):
        return None
    value_type = NATIVE_TYPES.get(fields[0].shape.type)
    return None if value_type is None else (fields[0].name, value_type)


def _takes_objects(field: FieldShape) -> bool:
    return field.is_map or isinstance(field.shape, MessageShape | ValueShape | OneofShape | WrapperShape)


def _is_single(field: FieldShape) -> bool:
    return field.is_singular and isinstance(field.shape, ScalarShape | EnumShape | TimestampShape)


def _is_scalar(field: FieldShape) -> bool:
    return field.is_singular and isinstance(field.shape, ScalarShape)
