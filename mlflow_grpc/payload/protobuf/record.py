"""Messages of a model's own types into records, and predictions into messages of its output.

Rule of this module: it knows which part of a call is which; what single values become is decided in the modules beside
it, and what the messages look like in `mlflow_grpc.contract.messages`.
"""

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
from google.protobuf.message import Message as ProtoMessage

from mlflow_grpc.contract.shapes import (
    EnumShape,
    FieldShape,
    MessageShape,
    ModelMessages,
    OneofShape,
    ScalarShape,
    TensorShape,
    TimestampShape,
    ValueShape,
    WrapperShape,
)
from mlflow_grpc.contract.types import Contract, Tensor, row_of
from mlflow_grpc.errors import InvalidPayload
from mlflow_grpc.payload.codec import ModelInput, RecordCodec
from mlflow_grpc.payload.protobuf import unknown_fields
from mlflow_grpc.payload.protobuf.reader import Reader
from mlflow_grpc.payload.protobuf.values import as_unwritable, is_list, unwritable
from mlflow_grpc.payload.protobuf.writer import AS_THEY_ARE, fill


class TypedCodec:
    """Reads the input messages of one model and writes those of its output."""

    def __init__(
        self, codec: RecordCodec, contract: Contract, messages: ModelMessages, output_class: type[ProtoMessage]
    ) -> None:
        """Args:
        codec: Takes records.
        contract: What the model takes and gives.
        messages: Its messages.
        output_class: Of its output message.
        """
        self._codec = codec
        self._messages = messages
        self._output_class = output_class
        self._is_array = isinstance(contract.inputs, Tensor)
        self._tensors = _batched_tensors(contract)
        self._reader = Reader(with_zone=codec.timestamps_have_timezone, refuses_missing=not codec.refuses_missing)
        self._is_bare = not self._has_named_output(contract)
        self._only = _only_plain(messages.output.fields) if self._is_bare else None
        fields = messages.input.fields
        self._plain_count = len(fields) if all(_is_plain(field) for field in fields) and messages.params is None else -1
        # Fields come in the order of their numbers, which a lock keeps when the columns are in another one.
        in_message = sorted(field.number for field in fields)
        order = [in_message.index(field.number) for field in fields] if self._plain_count > 0 else []
        self._order = order if order != sorted(order) else None
        self._is_flat = messages.params is None and all(
            isinstance(field.shape, ScalarShape | EnumShape) and not field.is_map for field in fields
        )

    @staticmethod
    def _has_named_output(contract: Contract) -> bool:
        outputs = contract.outputs
        return outputs is not None and not isinstance(outputs, Tensor) and all(each.name for each in outputs.fields)

    def plain_values(self, message: Any) -> list[Any] | None:
        """The values of a message that has nothing but scalars, or the elements of an array, if all are there."""
        if self._is_array:
            field = self._messages.input.fields[0]
            if unknown_fields.are_at_top(message):
                return None
            if not isinstance(field.shape, TensorShape):
                return [getattr(message, field.name)] if message.HasField(field.name) else None
            found = getattr(message, field.name)
            if unknown_fields.are_at_top(found):
                return None
            return list(found.data) if not found.shape or tuple(found.shape) == field.shape.shape else None
        fields = message.ListFields()
        if len(fields) != self._plain_count or unknown_fields.are_at_top(message):
            return None
        values = [value for _, value in fields]
        return [values[place] for place in self._order] if self._order else values

    def decode(self, message: Any) -> ModelInput:
        """What the model is to be given for a message.

        Raises:
            InvalidPayload: The record does not fit, or holds what its type does not allow.
            InputRefused: It does not fit; `explain` says why.

        """
        return self.told(self._codec.decode_record(*self._record(message)), message)

    def has_unknown(self, message: Any) -> bool:
        """Whether a message for one row, or for many, has a field that its type does not have."""
        return unknown_fields.are_at_top(message) if self._is_flat else unknown_fields.are_within(message)

    def told(self, decoded: ModelInput, message: Any) -> ModelInput:
        """The input with the fields that the message has and its type does not, by their numbers.

        Args:
            decoded: What the message came to.
            message: The message.

        Raises:
            InvalidPayload: They are to be refused.

        """
        if not self.has_unknown(message):
            return decoded
        return replace(decoded, ignored=self._codec.unknown.told(unknown_fields.numbers(message)))

    def explain(self, message: Any, cause: BaseException | None) -> InvalidPayload:
        """Finds the words for a refusal."""
        return self._codec.explain_record(*self._record(message), cause)

    def encode(self, predictions: Any) -> ProtoMessage:
        """The output message for the predictions for one record.

        Raises:
            UnwritableAnswer: They are not what the model's output says, or not for one record.

        """
        output = self._output_class()
        if self._only is not None and is_list(predictions) and len(predictions) == 1:
            name, kind = self._only
            value = predictions[0].item() if isinstance(predictions[0], np.generic) else predictions[0]
            if type(value) is kind:
                with contextlib.suppress(ValueError):  # Past 64 bits, or a lone surrogate: told below.
                    setattr(output, name, value)
                    return output
        with as_unwritable():
            fill(output, self._messages.output, self.as_record(self._codec.value(predictions)), "")
        return output

    def failed(self, error: ProtoMessage) -> ProtoMessage:
        """The output message that has nothing but an error."""
        return self._output_class(**{self._messages.error_field: error})

    def as_record(self, value: Any) -> Any:
        """What was predicted, by the names of the output: a bare value for the only one, a list of one for each."""
        fields = self._messages.output.fields
        if len(fields) == 1:
            return self._as_only(fields[0], value)
        if not is_list(value):
            return value
        values = list(value)
        if len(values) != len(fields):
            unwritable("output", f"{len(values)} values for {len(fields)} fields")
        return {field.source.name or field.name: each for field, each in zip(fields, values, strict=True)}

    def _as_only(self, field: FieldShape, value: Any) -> dict[str, Any]:
        """What was predicted for the only output: as a record of it, bare, or as the only column of a table."""
        name = field.source.name or field.name
        if isinstance(value, dict) and not self._is_bare and (value.keys() <= {name} or not _takes_objects(field)):
            return value
        if is_list(value) and len(value) == 1 and _is_single(field):
            return {name: value[0]}
        return {name: value}

    def params(self, message: Any) -> dict[str, Any] | None:
        """The params that are there; None if there are none."""
        if self._messages.params is None or not message.HasField(self._messages.params_field):
            return None
        return self._reader.record(getattr(message, self._messages.params_field), self._messages.params, "params")

    def _record(self, message: Any) -> tuple[Any, dict[str, Any] | None]:
        params = self.params(message)
        record = self._reader.record(message, self._messages.input, "")
        for name in self._tensors & record.keys():
            record[name] = np.asarray(record[name])[np.newaxis]
        return (np.asarray(record["value"]) if self._is_array else record), params


def _batched_tensors(contract: Contract) -> set[str]:
    """The fields whose tensors have a size for the rows before those of one row."""
    if isinstance(contract.inputs, Tensor):
        return {"value"} if row_of(contract.inputs) != contract.inputs else set()
    fields = contract.inputs.fields if contract.inputs is not None else []
    return {each.name for each in fields if isinstance(each.type, Tensor) and row_of(each.type) != each.type}


def _only_plain(fields: list[FieldShape]) -> tuple[str, type] | None:
    """The name of the only field, and the type of values that stand in it without a further look."""
    if len(fields) != 1 or not _is_plain(fields[0]) or not isinstance(fields[0].shape, ScalarShape):
        return None
    kind = AS_THEY_ARE.get(fields[0].shape.type)
    return None if kind is None else (fields[0].name, kind)


def _takes_objects(field: FieldShape) -> bool:
    return field.is_map or isinstance(field.shape, MessageShape | ValueShape | OneofShape | WrapperShape)


def _is_single(field: FieldShape) -> bool:
    return field.is_singular and isinstance(field.shape, ScalarShape | EnumShape | TimestampShape)


def _is_plain(field: FieldShape) -> bool:
    return field.is_singular and isinstance(field.shape, ScalarShape)
