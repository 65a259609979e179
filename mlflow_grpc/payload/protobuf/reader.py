"""Messages of a model's own types into records.

Rule of this module: no value is changed on the way. What a message may hold and a record may not is refused.
"""

import math
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
from _mlflow_grpc_protocol import json_values
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto
from google.protobuf.unknown_fields import UnknownFieldSet

from mlflow_grpc.contract.shapes import (
    Cardinality,
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
from mlflow_grpc.errors import FieldViolation, InvalidPayload
from mlflow_grpc.payload.codec import ABSENT

MOST_EMPTY = 1_000
"""Rows without elements, of which a shape of a few bytes could say that there are any number."""


class Reader:
    """Reads messages into records."""

    def __init__(self, *, with_zone: bool, refuses_missing: bool = False) -> None:
        """Args:
        with_zone: Whether points in time end with Z.
        refuses_missing: Whether a record without a field that it needs is refused.
        """
        self._with_zone = with_zone
        self._refuses_missing = refuses_missing

    def record(self, message: Any, shape: MessageShape, path: str, *, optional: bool = False) -> dict[str, Any]:
        """The fields that are there, by the names of their columns; None for what has to be there and may be null.

        Args:
            message: The message.
            shape: What it holds.
            path: What it is called in errors.
            optional: Whether it may be left out: then MLflow takes one without any field, whatever it needs.

        Raises:
            InvalidPayload: It lacks a field, has one that a closed record does not, or a value that none may have.

        """
        if shape.is_closed:
            refuse_unknown(message, path)
        if self._refuses_missing and not (optional and not message.ListFields()):
            self._check_needed(message, shape, path)
        record = {}
        for field in shape.fields:
            name = label(field)
            where = f"{path}.{name}".lstrip(".")
            if field.cardinality is Cardinality.SINGULAR:
                if message.HasField(field.name) and not self._is_unspecified(message, field):
                    record[name] = self._value(
                        getattr(message, field.name), field.shape, where, not field.source.required
                    )
                elif field.source.is_null_if_absent:
                    record[name] = None
            elif (found := getattr(message, field.name)) or field.source.required or _null_items(message, field):
                record[name] = self._many(found, message, field, where, not field.source.required)
        return record

    def _check_needed(self, message: Any, shape: MessageShape, path: str) -> None:
        absent = [
            f"{path}.{label(field)}".lstrip(".")
            for field in shape.fields
            if field.cardinality is Cardinality.SINGULAR
            and field.source.needs_value
            and not message.HasField(field.name)
        ]
        if absent:
            raise missing(absent)

    @staticmethod
    def _is_unspecified(message: Any, field: FieldShape) -> bool:
        return isinstance(field.shape, EnumShape) and getattr(message, field.name) == 0

    def column(self, found: Any, field: FieldShape, nulls: set[int], where: str) -> list[Any]:
        """The values of a column, with `nothing(field)` in the rows that have none."""
        if isinstance(field.shape, ScalarShape) and not nulls:
            return list(found)
        optional = not field.source.required
        values = [
            nothing(field) if place in nulls else self._value(each, field.shape, f"[{place}].{where}", optional)
            for place, each in enumerate(found)
        ]
        return _of_one_length(values) if isinstance(field.shape, TimestampShape) and not self._with_zone else values

    def tensor(self, found: Any, shape: TensorShape, count: int, where: str) -> Any:
        """One tensor of so many rows, for each of which there is a shape."""
        return _array_of(found, replace(shape, shape=(count, *shape.shape)), where)

    def _many(self, found: Any, message: Any, field: FieldShape, where: str, optional: bool) -> Any:
        if field.null_items and (nulls := getattr(message, field.null_items)):
            return self._with_nulls(found, frozenset(nulls), field, where, optional)
        if field.cardinality is Cardinality.MAP:
            return {key: self._value(found[key], field.shape, f"{where}.{key}", optional) for key in found}
        if isinstance(field.shape, ScalarShape):
            return list(found)
        return [self._value(each, field.shape, f"{where}[{place}]", optional) for place, each in enumerate(found)]

    def _with_nulls(self, found: Any, nulls: frozenset[Any], field: FieldShape, where: str, optional: bool) -> Any:
        """A list or map with None in some places; what the message has there is of no meaning."""
        if field.cardinality is Cardinality.MAP:
            keys = found.keys() - nulls
            values = {key: self._value(found[key], field.shape, f"{where}.{key}", optional) for key in keys}
            return values | dict.fromkeys(nulls)
        if max(nulls) >= len(found):
            _refuse(where, f"has {len(found)} values, counted from 0, and {field.null_items} names {max(nulls)}")
        return [
            None if place in nulls else self._value(each, field.shape, f"{where}[{place}]", optional)
            for place, each in enumerate(found)
        ]

    def _value(self, value: Any, shape: Shape, where: str, optional: bool) -> Any:
        match shape:
            case ScalarShape():
                return value
            case EnumShape():
                if value not in shape.numbers:
                    _refuse(where, f"has no value of number {value}")
                return shape.values[shape.numbers.index(value)]
            case TimestampShape():
                return self._moment(value, where)
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

    def _content(self, value: Any, field: FieldShape, where: str, optional: bool) -> Any:
        found = getattr(value, field.name)
        if field.cardinality is not Cardinality.SINGULAR:
            return self._many(found, value, field, where, optional)
        return self._value(found, field.shape, where, optional) if value.HasField(field.name) else None

    def _alternative(self, value: Any, shape: OneofShape, where: str, optional: bool) -> Any:
        chosen = value.WhichOneof("value")
        if chosen is None:
            _refuse(where, "has no value in it")
        return self._value(getattr(value, chosen), dict(shape.alternatives)[chosen], where, optional)

    def _moment(self, value: Any, where: str) -> str:
        try:
            text: str = value.ToJsonString()
        except ValueError:
            _refuse(where, "is no point in time between the years 1 and 9999")
        return text if self._with_zone else text.removesuffix("Z")


def _null_items(message: Any, field: FieldShape) -> Any:
    """The places or keys of the nulls within a list or map; empty if there are none, or may be none."""
    return getattr(message, field.null_items) if field.null_items else ()


def label(field: FieldShape) -> str:
    """What a field is called in errors: as in the model, and as in the message if it has no name there."""
    return field.source.name or field.name


def refuse_unknown(message: Any, where: str) -> None:
    """Refuses a message with a field that its type does not have.

    Raises:
        InvalidPayload: It has.

    """
    unknown = UnknownFieldSet(message)
    numbers = sorted({unknown[place].field_number for place in range(len(unknown))})
    if numbers:
        fields = [f"{where}.{number}".lstrip(".") for number in numbers]
        raise InvalidPayload(
            f"{where or 'The record'} has fields that the model does not have, of the numbers "
            f"{', '.join(map(str, numbers))}.",
            reason="INVALID_PARAMETER_VALUE",
            error_class="SCHEMA_ENFORCEMENT_FAILED",
            violations=tuple(FieldViolation(field, "the model has no such field") for field in fields),
        )


def missing(names: list[str]) -> InvalidPayload:
    """The refusal of a record without fields that the model needs."""
    words = "missing, and the model needs it"
    return InvalidPayload(
        f"The record does not fit the model's signature: {'; '.join(f'{name}: {words}' for name in names)}.",
        reason="INVALID_PARAMETER_VALUE",
        error_class="SCHEMA_ENFORCEMENT_FAILED",
        violations=tuple(FieldViolation(name, words) for name in names),
    )


def nothing(field: FieldShape) -> Any:
    """What stands in a column for a row without a value: None if the field has to be there, else ABSENT."""
    return None if field.source.is_null_if_absent else ABSENT


def _of_one_length(moments: list[Any]) -> list[Any]:
    """Points in time with as many digits each: pandas takes the form of the first for that of the column."""
    digits = max((len(each.partition(".")[2]) for each in moments if isinstance(each, str)), default=0)
    if not digits:
        return moments
    return [
        f"{each.partition('.')[0]}.{each.partition('.')[2]:0<{digits}}" if isinstance(each, str) else each
        for each in moments
    ]


def _array_of(value: Any, shape: TensorShape, where: str) -> Any:
    sizes = tuple(value.shape) or shape.shape
    fits = len(sizes) == len(shape.shape) and all(
        want in (-1, got) for want, got in zip(shape.shape, sizes, strict=True)
    )
    if not fits or any(size < 0 for size in sizes) or math.prod(sizes) != len(value.data):
        _refuse(where, f"must have the shape {list(shape.shape)} (-1 is any size) and as many elements in data")
    if 0 in sizes and math.prod(sizes[: sizes.index(0)]) > MOST_EMPTY:
        _refuse(where, f"has more than {MOST_EMPTY} rows without elements")
    # Of texts and bytes as numpy's own types, those at the end would lose their NULs.
    kind = object if shape.element in (Proto.TYPE_STRING, Proto.TYPE_BYTES) else None
    return np.array(value.data, dtype=kind).reshape(sizes)


def _refuse(where: str, what: str) -> NoReturn:
    raise InvalidPayload(
        f"{where} {what}.", reason="INVALID_PARAMETER_VALUE", violations=(FieldViolation(where, what),)
    )
