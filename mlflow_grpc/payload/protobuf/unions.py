"""Choice of the type of a union that a value is written in.

Rule of this module: it chooses the type that fits best, and the first of several that fit equally, as pydantic does.
A type does not fit if any value inside, at any depth, cannot be written in it.
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
from _mlflow_grpc_protocol import timestamps
from _mlflow_grpc_protocol.scalars import FLOATS
from _mlflow_grpc_protocol.shapes import (
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
from google.protobuf import struct_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from mlflow_grpc.errors import UnserializableOutput
from mlflow_grpc.payload.protobuf.values import exact_value, is_nothing, json_items, write_json

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
"""Python type of each format, by the name that pydantic gives the format."""


class Fit(IntEnum):
    """How well a value fits a type."""

    NOT = 0
    LIKE = 1
    """The value fits without loss, but another type may fit better: an integer in a float, a text in an address."""
    EXACT = 2


def choose_alternative(value: Any, shape: OneofShape) -> tuple[str, Shape] | None:
    """Returns the name and type of the alternative that a value is written in; None if it fits no alternative."""
    checker = _FitChecker()
    fits = [checker.fit(value, alternative) for alternative in shape.alternatives.values()]
    best = max(fits)
    return None if best is Fit.NOT else list(shape.alternatives.items())[fits.index(best)]


class _FitChecker:
    """Checks how well one value fits types.

    Results are cached, because a recursive type would otherwise be checked again at each depth.
    """

    def __init__(self) -> None:
        self._cached: dict[tuple[int, int], tuple[Any, Shape, Fit]] = {}

    def fit(self, value: Any, shape: Shape) -> Fit:
        """Returns how well a value fits a type."""
        key = id(value), id(shape)
        if key not in self._cached:
            # Both are kept alive, because the id of a deleted object may be used again.
            self._cached[key] = (value, shape, self._compute_fit(value, shape))
        return self._cached[key][2]

    def _compute_fit(self, value: Any, shape: Shape) -> Fit:
        fit = Fit.LIKE
        match shape:
            case ScalarShape():
                fit = _fit_scalar(value, shape)
            case EnumShape():
                text = value.value if isinstance(value, Enum) else value
                fit = Fit.EXACT if isinstance(text, str) and text in shape.numbers else Fit.NOT
            case TimestampShape():
                fit = _fit_timestamp(value)
            case ValueShape():
                fit = _fit_json(value)
            case MessageShape():
                fit = self._fit_record(value, shape)
            case WrapperShape(content=FieldShape(is_singular=True)):
                fit = Fit.EXACT if is_nothing(value) else self.fit(value, shape.content.shape)
            case WrapperShape():
                fit = self._fit_field(value, shape.content)
            case OneofShape():
                fit = max(self.fit(value, alternative) for alternative in shape.alternatives.values())
        return fit

    def _fit_record(self, value: Any, shape: MessageShape) -> Fit:
        fields = {field.label: field for field in shape.fields}
        if not isinstance(value, dict) or not value.keys() <= fields.keys():
            return Fit.NOT
        fit = Fit.EXACT if len(value) == len(fields) else Fit.LIKE
        for name, field in fields.items():
            if not is_nothing(field_value := value.get(name)):
                fit = min(fit, self._fit_field(field_value, field))
            elif field.required and not (name in value and field.nullable):
                return Fit.NOT
            if fit is Fit.NOT:
                break
        return fit

    def _fit_field(self, value: Any, field: FieldShape) -> Fit:
        if field.is_singular:
            return self.fit(value, field.shape)
        if field.is_repeated:
            items = value.tolist() if isinstance(value, np.ndarray) else value
            return self._fit_items(items, field.shape) if isinstance(items, list | tuple | set | frozenset) else Fit.NOT
        if not isinstance(value, dict):
            return Fit.NOT
        try:
            return self._fit_items([item for _, item in json_items(value, "")], field.shape)
        except UnserializableOutput:
            return Fit.NOT

    def _fit_items(self, items: Iterable[Any], shape: Shape) -> Fit:
        fit = Fit.EXACT
        for item in items:
            fit = min(fit, self.fit(item, shape))
            if fit is Fit.NOT:
                break
        return fit


def _fit_scalar(value: Any, shape: ScalarShape) -> Fit:
    value = value.value if isinstance(value, Enum) else value
    value = value.item() if isinstance(value, np.generic) else value
    exact = exact_value(value, shape.type)
    if exact is None:
        return Fit.NOT
    if shape.type != Proto.TYPE_STRING:
        return Fit.EXACT if isinstance(value, float) is (shape.type in FLOATS) else Fit.LIKE
    if not shape.format:
        return Fit.EXACT if isinstance(value, str) else Fit.LIKE
    return _fit_format(exact, shape.format)


def _fit_format(text: str, name: str) -> Fit:
    """Returns how well a text fits a format: EXACT if pydantic writes it so, LIKE if pydantic only reads it.

    Any text may be of a format that this module does not have.
    """
    if name not in _FORMATS:
        return Fit.LIKE
    adapter = _adapter(name)
    try:
        parsed = adapter.validate_strings(text, strict=True)
    except pydantic.ValidationError:
        return Fit.NOT
    return Fit.EXACT if adapter.dump_python(parsed, mode="json") == text else Fit.LIKE


@cache
def _adapter(name: str) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(_FORMATS[name])


def _fit_timestamp(value: Any) -> Fit:
    if isinstance(value, str) and _fit_format(value, "date-time") is Fit.NOT:
        return Fit.NOT  # Such as a date without a time.
    try:
        timestamps.seconds_and_nanos(value)
    except (TypeError, ValueError):
        return Fit.NOT
    return Fit.LIKE if isinstance(value, str) else Fit.EXACT


def _fit_json(value: Any) -> Fit:
    try:
        write_json(struct_pb2.Value(), value, "")
    except (TypeError, ValueError, OverflowError, UnserializableOutput):
        return Fit.NOT
    return Fit.LIKE
