"""Conversion of messages of a model's own types into records.

Rule of this module: it changes no value. A message with content that a record cannot hold is refused.
"""

import math
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
from _mlflow_grpc_protocol import json_values
from _mlflow_grpc_protocol.shapes import (
    EnumShape,
    FieldShape,
    MessageShape,
    OneofShape,
    ScalarShape,
    Shape,
    TensorShape,
    TimestampShape,
    ValueShape,
    WrapperShape,
)
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto
from google.protobuf.unknown_fields import UnknownFieldSet

from mlflow_grpc.errors import FieldViolation, InvalidPayload
from mlflow_grpc.payload.codec import ABSENT

MAX_EMPTY_ROWS = 1_000
"""Maximum rows without elements in a tensor. A shape of a few bytes can declare any number of them."""


class Reader:
    """Reads messages into records."""

    def __init__(self, *, with_zone: bool, refuses_missing: bool = False) -> None:
        """Sets how timestamps are written and whether required fields are checked.

        Args:
            with_zone: True if timestamps end with Z.
            refuses_missing: True if a record that lacks a required field is refused.

        """
        self._with_zone = with_zone
        self._refuses_missing = refuses_missing

    def record(self, message: Any, shape: MessageShape, path: str, *, optional: bool = False) -> dict[str, Any]:
        """Reads the fields that are set, by column name; a required field that may be null is None if it is not set.

        Args:
            message: The message.
            shape: Shape of the message.
            path: Path of the message in errors.
            optional: True if the message may be left out. An empty one then needs no fields, because MLflow accepts it.

        Raises:
            InvalidPayload: A required field is missing, a closed record has an unknown field, or a value is invalid.

        """
        if shape.is_closed:
            refuse_unknown(message, path)
        if self._refuses_missing and not (optional and not message.ListFields()):
            self._check_required(message, shape, path)
        record = {}
        for field in shape.fields:
            name = field.label
            where = f"{path}.{name}".lstrip(".")
            if field.is_singular:
                if message.HasField(field.name) and not self._is_unspecified(message, field):
                    record[name] = self._value(getattr(message, field.name), field.shape, where, not field.required)
                elif field.is_null_if_absent:
                    record[name] = None
            elif (items := getattr(message, field.name)) or field.required or _null_items(message, field):
                record[name] = self._items(items, message, field, where, not field.required)
        return record

    def _check_required(self, message: Any, shape: MessageShape, path: str) -> None:
        absent = [
            f"{path}.{field.label}".lstrip(".")
            for field in shape.fields
            if field.is_singular and field.needs_value and not message.HasField(field.name)
        ]
        if absent:
            raise missing_fields_error(absent)

    @staticmethod
    def _is_unspecified(message: Any, field: FieldShape) -> bool:
        return isinstance(field.shape, EnumShape) and getattr(message, field.name) == 0

    def column(self, items: Any, field: FieldShape, nulls: set[int], where: str) -> list[Any]:
        """Reads the values of a column, with `missing_value(field)` in the rows without a value."""
        if isinstance(field.shape, ScalarShape) and not nulls:
            return list(items)
        optional = not field.required
        values = [
            missing_value(field) if row in nulls else self._value(item, field.shape, f"[{row}].{where}", optional)
            for row, item in enumerate(items)
        ]
        return _pad_fractions(values) if isinstance(field.shape, TimestampShape) and not self._with_zone else values

    def tensor(self, message: Any, shape: TensorShape, count: int, where: str) -> Any:
        """Reads a tensor with `count` rows, each of the given shape."""
        return _array_of(message, replace(shape, shape=(count, *shape.shape)), where)

    def _items(self, items: Any, message: Any, field: FieldShape, where: str, optional: bool) -> Any:
        """Reads the items of a list or map."""
        if field.null_items and (nulls := getattr(message, field.null_items)):
            return self._items_with_nulls(items, frozenset(nulls), field, where, optional)
        if field.is_map:
            return {key: self._value(items[key], field.shape, f"{where}.{key}", optional) for key in items}
        if isinstance(field.shape, ScalarShape):
            return list(items)
        return [self._value(item, field.shape, f"{where}[{index}]", optional) for index, item in enumerate(items)]

    def _items_with_nulls(
        self, items: Any, nulls: frozenset[Any], field: FieldShape, where: str, optional: bool
    ) -> Any:
        """Reads a list or map in which some items are null; what the message holds for these items is ignored."""
        if field.is_map:
            keys = items.keys() - nulls
            values = {key: self._value(items[key], field.shape, f"{where}.{key}", optional) for key in keys}
            return values | dict.fromkeys(nulls)
        if max(nulls) >= len(items):
            _refuse(where, f"has {len(items)} values, counted from 0, and {field.null_items} names {max(nulls)}")
        return [
            None if index in nulls else self._value(item, field.shape, f"{where}[{index}]", optional)
            for index, item in enumerate(items)
        ]

    def _value(self, value: Any, shape: Shape, where: str, optional: bool) -> Any:
        match shape:
            case ScalarShape():
                return value
            case EnumShape():
                if value not in shape.values:
                    _refuse(where, f"has no value of number {value}")
                return shape.values[value]
            case TimestampShape():
                return self._timestamp(value, where)
            case ValueShape():
                return json_values.read(value)
            case TensorShape():
                return _array_of(value, shape, where)
            case OneofShape():
                return self._alternative(value, shape, where, optional)
            case WrapperShape():
                return self._content(value, shape.content, where, optional)
            case MessageShape():
                return self.record(value, shape, where, optional=optional)

    def _content(self, wrapper: Any, field: FieldShape, where: str, optional: bool) -> Any:
        """Reads the value in a wrapper message; None if it is not set."""
        content = getattr(wrapper, field.name)
        if not field.is_singular:
            return self._items(content, wrapper, field, where, optional)
        return self._value(content, field.shape, where, optional) if wrapper.HasField(field.name) else None

    def _alternative(self, message: Any, shape: OneofShape, where: str, optional: bool) -> Any:
        chosen = message.WhichOneof("value")
        if chosen is None:
            _refuse(where, "has no value in it")
        return self._value(getattr(message, chosen), shape.alternatives[chosen], where, optional)

    def _timestamp(self, value: Any, where: str) -> str:
        try:
            text: str = value.ToJsonString()
        except ValueError:
            _refuse(where, "is not a point in time between the years 1 and 9999")
        return text if self._with_zone else text.removesuffix("Z")


def _null_items(message: Any, field: FieldShape) -> Any:
    """Returns the indexes or keys of the null items of a list or map; empty if it has none or cannot have any."""
    return getattr(message, field.null_items) if field.null_items else ()


def refuse_unknown(message: Any, where: str) -> None:
    """Refuses a message with a field that its type does not have.

    Raises:
        InvalidPayload: The message has such a field.

    """
    unknown = UnknownFieldSet(message)
    numbers = sorted({unknown[index].field_number for index in range(len(unknown))})
    if numbers:
        fields = [f"{where}.{number}".lstrip(".") for number in numbers]
        raise InvalidPayload(
            f"{where or 'The record'} has fields that the model does not have, of the numbers "
            f"{', '.join(map(str, numbers))}.",
            reason="INVALID_PARAMETER_VALUE",
            error_class="SCHEMA_ENFORCEMENT_FAILED",
            violations=tuple(FieldViolation(field, "the model has no such field") for field in fields),
        )


def missing_fields_error(names: list[str]) -> InvalidPayload:
    """Makes the error for a record without fields that the model needs."""
    description = "missing, and the model needs it"
    return InvalidPayload(
        f"The record does not fit the model's signature: {'; '.join(f'{name}: {description}' for name in names)}.",
        reason="INVALID_PARAMETER_VALUE",
        error_class="SCHEMA_ENFORCEMENT_FAILED",
        violations=tuple(FieldViolation(name, description) for name in names),
    )


def missing_value(field: FieldShape) -> Any:
    """Returns the entry of a column for a row without a value: None if the field is required, else ABSENT."""
    return None if field.is_null_if_absent else ABSENT


def _pad_fractions(timestamps: list[Any]) -> list[Any]:
    """Pads all timestamps to the same number of digits, because pandas infers the format from the first one."""
    digits = max((len(text.partition(".")[2]) for text in timestamps if isinstance(text, str)), default=0)
    if not digits:
        return timestamps
    return [
        f"{text.partition('.')[0]}.{text.partition('.')[2]:0<{digits}}" if isinstance(text, str) else text
        for text in timestamps
    ]


def _array_of(message: Any, shape: TensorShape, where: str) -> Any:
    sizes = tuple(message.shape) or shape.shape
    fits = len(sizes) == len(shape.shape) and all(
        expected in (-1, size) for expected, size in zip(shape.shape, sizes, strict=True)
    )
    if not fits or any(size < 0 for size in sizes) or math.prod(sizes) != len(message.data):
        _refuse(where, f"must have the shape {list(shape.shape)} (-1 is any size) and as many elements in data")
    if 0 in sizes and math.prod(sizes[: sizes.index(0)]) > MAX_EMPTY_ROWS:
        _refuse(where, f"has more than {MAX_EMPTY_ROWS} rows without elements")
    # numpy's own string and bytes types drop NULs at the end of an element.
    dtype = object if shape.element.type in (Proto.TYPE_STRING, Proto.TYPE_BYTES) else None
    return np.array(message.data, dtype=dtype).reshape(sizes)


def _refuse(where: str, problem: str) -> NoReturn:
    raise InvalidPayload(
        f"{where} {problem}.", reason="INVALID_PARAMETER_VALUE", violations=(FieldViolation(where, problem),)
    )
