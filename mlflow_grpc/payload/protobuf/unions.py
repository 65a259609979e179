"""Which type of a union a value is of.

Rule of this module: a value stands in the type that it fits best, and of equals in the first, as pydantic reads it.
What does not fit a type, however deep inside, cannot be written in it.
"""

import datetime
import ipaddress
from collections.abc import Iterable
from enum import Enum, IntEnum
from functools import cache
from typing import Any
from uuid import UUID

import numpy as np
import pydantic
from google.protobuf import struct_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from mlflow_grpc.contract.shapes import (
    Cardinality,
    EnumShape,
    FieldShape,
    MessageShape,
    OneofShape,
    ScalarShape,
    Shape,
    TimestampShape,
    ValueShape,
    WrapperShape,
)
from mlflow_grpc.errors import UnwritableAnswer
from mlflow_grpc.payload import timestamps
from mlflow_grpc.payload.protobuf.values import exactly, is_nothing, keyed, write_json

_FORMATS: dict[str, type] = {
    "date": datetime.date,
    "time": datetime.time,
    "date-time": datetime.datetime,
    "duration": datetime.timedelta,
    "uri": pydantic.AnyUrl,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "ipv4network": ipaddress.IPv4Network,
    "ipv6network": ipaddress.IPv6Network,
    "ipv4interface": ipaddress.IPv4Interface,
    "ipv6interface": ipaddress.IPv6Interface,
    **{f"uuid{version}": UUID for version in ("", 1, 3, 4, 5, 6, 7, 8)},
}
"""The types whose texts a format is for, by the names that pydantic gives them."""


class Fit(IntEnum):
    """How well a value fits a type."""

    NOT = 0
    LIKE = 1
    """Nothing of it would be lost, but another type may be its own: an integer for a float, a text for an address."""
    EXACT = 2


def chosen(value: Any, shape: OneofShape) -> tuple[str, Shape] | None:
    """The name and the type of the alternative that a value is written in; None if it fits none."""
    judge = _Judge()
    fits = [judge.fit(value, alternative) for _, alternative in shape.alternatives]
    best = max(fits)
    return None if best is Fit.NOT else shape.alternatives[fits.index(best)]


class _Judge:
    """Judges one value. What it has seen it keeps: types that hold themselves would be tried again at each depth."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[Any, Shape, Fit]] = {}

    def fit(self, value: Any, shape: Shape) -> Fit:
        """How well a value fits a type."""
        key = id(value), id(shape)
        if key not in self._known:
            # Both are kept: an object that is gone would leave its id to another one.
            self._known[key] = (value, shape, self._judged(value, shape))
        return self._known[key][2]

    def _judged(self, value: Any, shape: Shape) -> Fit:
        found = Fit.LIKE
        match shape:
            case ScalarShape():
                found = _of_scalar(value, shape)
            case EnumShape():
                word = value.value if isinstance(value, Enum) else value
                found = Fit.EXACT if isinstance(word, str) and word in shape.values else Fit.NOT
            case TimestampShape():
                found = _of_moment(value)
            case ValueShape():
                found = _of_json(value)
            case MessageShape():
                found = self._of_record(value, shape)
            case WrapperShape(content=FieldShape(cardinality=Cardinality.SINGULAR)):
                found = Fit.EXACT if is_nothing(value) else self.fit(value, shape.content.shape)
            case WrapperShape():
                found = self._in_field(value, shape.content)
            case OneofShape():
                found = max(self.fit(value, alternative) for _, alternative in shape.alternatives)
        return found

    def _of_record(self, value: Any, shape: MessageShape) -> Fit:
        fields = {field.source.name or field.name: field for field in shape.fields}
        if not isinstance(value, dict) or not value.keys() <= fields.keys():
            return Fit.NOT
        found = Fit.EXACT if len(value) == len(fields) else Fit.LIKE
        for name, field in fields.items():
            if not is_nothing(each := value.get(name)):
                found = min(found, self._in_field(each, field))
            elif field.source.required and not (name in value and field.source.nullable):
                return Fit.NOT
            if found is Fit.NOT:
                break
        return found

    def _in_field(self, value: Any, field: FieldShape) -> Fit:
        if field.cardinality is Cardinality.SINGULAR:
            return self.fit(value, field.shape)
        if field.cardinality is Cardinality.REPEATED:
            items = value.tolist() if isinstance(value, np.ndarray) else value
            return self._all(items, field.shape) if isinstance(items, list | tuple | set | frozenset) else Fit.NOT
        if not isinstance(value, dict):
            return Fit.NOT
        try:
            return self._all([each for _, each in keyed(value, "")], field.shape)
        except UnwritableAnswer:
            return Fit.NOT

    def _all(self, values: Iterable[Any], shape: Shape) -> Fit:
        found = Fit.EXACT
        for each in values:
            found = min(found, self.fit(each, shape))
            if found is Fit.NOT:
                break
        return found


def _of_scalar(value: Any, shape: ScalarShape) -> Fit:
    value = value.value if isinstance(value, Enum) else value
    value = value.item() if isinstance(value, np.generic) else value
    exact = exactly(value, shape.type)
    if exact is None:
        return Fit.NOT
    if shape.type != Proto.TYPE_STRING:
        is_float = shape.type in (Proto.TYPE_DOUBLE, Proto.TYPE_FLOAT)
        return Fit.EXACT if isinstance(value, float) is is_float else Fit.LIKE
    if not shape.format:
        return Fit.EXACT if isinstance(value, str) else Fit.LIKE
    return _of_format(exact, shape.format)


def _of_format(text: str, name: str) -> Fit:
    """Whether a text is how pydantic writes a value of a format, or at least how it reads one; any text may be of a
    format that is not known here.
    """
    if name not in _FORMATS:
        return Fit.LIKE
    adapter = _adapter(name)
    try:
        read = adapter.validate_strings(text, strict=True)
    except pydantic.ValidationError:
        return Fit.NOT
    return Fit.EXACT if adapter.dump_python(read, mode="json") == text else Fit.LIKE


@cache
def _adapter(name: str) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(_FORMATS[name])


def _of_moment(value: Any) -> Fit:
    if isinstance(value, str) and _of_format(value, "date-time") is Fit.NOT:
        return Fit.NOT  # A date alone.
    try:
        timestamps.seconds_and_nanos(value)
    except (TypeError, ValueError):
        return Fit.NOT
    return Fit.LIKE if isinstance(value, str) else Fit.EXACT


def _of_json(value: Any) -> Fit:
    try:
        write_json(struct_pb2.Value(), value, "")
    except (TypeError, ValueError, OverflowError, UnwritableAnswer):
        return Fit.NOT
    return Fit.LIKE
