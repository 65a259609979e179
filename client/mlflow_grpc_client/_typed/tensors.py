"""Conversion of arrays and nested lists into messages of data and shape, and back.

Rule of this module: elements of an array become Python objects only where their bytes cannot be sent. numpy is not
imported.
"""

import math
import struct
from collections.abc import Callable
from typing import Any

from _mlflow_grpc_protocol.scalars import INTEGER_BOUNDS
from _mlflow_grpc_protocol.shapes import ScalarShape
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from mlflow_grpc_client._payloads import library
from mlflow_grpc_client._typed.batch_request import BatchRequest, header
from mlflow_grpc_client._typed.contract import type_name

_FLOAT_OVERFLOW = (2 - 2**-24) * 2.0**127
"""The smallest double that rounds to infinity as a 32-bit float."""

MAX_DIMENSIONS = 64
"""Maximum nesting of lists, as in numpy. The limit ends a list that contains itself."""

Scalar = Callable[[Any, ScalarShape, str], Any]

_DOUBLE, _FLOAT, _BOOL = FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_BOOL

_PACKED = {_DOUBLE: ("f8", "<f8"), _FLOAT: ("f4", "<f4"), _BOOL: ("b1", "u1")}
"""Array types whose bytes are those of a packed field, and the type to write them in."""

_EXACT_IN = {
    _DOUBLE: ("f4", "f2", "i4", "i2", "i1", "u4", "u2", "u1"),
    _FLOAT: ("f2", "i2", "i1", "u2", "u1"),
}
"""Array types whose numbers are all exact in a float type."""

_ARRAY_KINDS = {_DOUBLE: "iuf", _FLOAT: "iuf", _BOOL: "b", **dict.fromkeys(INTEGER_BOUNDS, "iu")}
"""numpy's kinds of arrays that may fit a type."""


def write(message: Any, element: ScalarShape, value: Any, path: str, scalar: Scalar) -> None:
    """Writes an array, a nested list or a single value into an empty message of `data` and `shape`."""
    shape, elements = flatten(value, path)
    message.shape.extend(shape)
    extend(message, "data", element, elements, path, scalar)


def put(request: BatchRequest, name: str, element: ScalarShape, array: Any, path: str) -> bool:
    """Writes an array into a message of `data` and `shape`; returns False, with nothing written, if it is no array."""
    if not isinstance(array, library("numpy", "ndarray")):
        return False
    shape, elements = flatten(array, path)
    data = packed(element, elements, path)
    if data is None:
        return False
    tensor = type(getattr(request.message, name))()
    tensor.shape.extend(shape)
    number = tensor.DESCRIPTOR.fields_by_name["data"].number
    request.add_field(name, tensor.SerializeToString(), header(number, len(data)), data)
    return True


def flatten(value: Any, path: str) -> tuple[tuple[int, ...], Any]:
    """The shape and the elements in order, as a flat array or a list."""
    if isinstance(value, library("numpy", "ndarray")):
        check_unmasked(value, path)
        return value.shape, value.reshape(-1)
    elements: list[Any] = [value]
    shape: list[int] = []
    while elements and _is_nested(elements[0]):
        size = len(elements[0])
        if not all(_is_nested(item) and len(item) == size for item in elements):
            raise ValueError(f"{path}: the lists within are not all of one size")
        if len(shape) == MAX_DIMENSIONS:
            raise ValueError(f"{path}: it is nested too deeply, or contains itself")
        shape.append(size)
        elements = [element for item in elements for element in item]
    return tuple(shape), elements


def _is_nested(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, library("numpy", "ndarray")) and value.ndim > 0)


def check_unmasked(array: Any, path: str) -> None:
    """Raises ValueError for an array with masked values, whose data must not be read."""
    if isinstance(array, library("numpy.ma", "MaskedArray")) and array.mask.any():
        raise ValueError(f"{path}: the array has masked values: fill them, such as with filled(nan)")


def single(number: float, path: str) -> float:
    """A number rounded to 32 bits."""
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", number))
    except OverflowError:
        raise _overflow(number, path) from None
    return float(rounded)


def extend(message: Any, name: str, element: ScalarShape, elements: Any, path: str, scalar: Scalar) -> None:
    """Writes the elements of a flat array or list into a repeated scalar field."""
    data = packed(element, elements, path)
    if data is None:
        elements = elements.tolist() if isinstance(elements, library("numpy", "ndarray")) else elements
        getattr(message, name).extend([scalar(value, element, path) for value in elements])
    elif data:
        number = message.DESCRIPTOR.fields_by_name[name].number
        message.MergeFromString(header(number, len(data)) + bytes(data))


def packed(element: ScalarShape, elements: Any, path: str) -> Any:
    """The bytes of a packed field with the elements of a flat array; None for anything but numbers that fit.

    Raises TypeError for an array of another type, and ValueError for a number above a float of 32 bits.
    """
    if not isinstance(elements, library("numpy", "ndarray")):
        return None
    dtype, written_as = _PACKED.get(element.type, ("", ""))
    if element.type == _FLOAT and elements.dtype.str[1:] == "f8":
        _check_overflow(elements, path)
        elements = elements.astype(dtype)
    elif elements.dtype.str[1:] in _EXACT_IN.get(element.type, ()):
        elements = elements.astype(dtype)
    if dtype and elements.dtype.str[1:] == dtype:
        elements = elements.view(written_as) if elements.dtype.kind == "b" else elements.astype(written_as, copy=False)
        return memoryview(elements if elements.flags.c_contiguous else elements.copy()).cast("B")
    if elements.dtype.kind not in f"{_ARRAY_KINDS.get(element.type, elements.dtype.kind)}O":
        raise TypeError(f"{path}: an array of {elements.dtype} does not fit, the model takes {type_name(element)}")
    if element.type in INTEGER_BOUNDS and elements.dtype.kind in "iu":
        low, high = INTEGER_BOUNDS[element.type]
        if not elements.size or (low <= int(elements.min()) and int(elements.max()) <= high):
            # Imported late, because it imports numpy, which callers with arrays have imported.
            from mlflow_grpc_client._typed import varints

            return varints.packed(elements)
    return None  # The conversion of a number that does not fit raises the error with its index.


def check_bounds(number: float, bounds: tuple[int, int], path: str) -> None:
    """Raises ValueError for a whole number that an integer type cannot hold."""
    if not bounds[0] <= number <= bounds[1]:
        raise ValueError(f"{path}: {number!r} is not within {bounds[0]} and {bounds[1]}")


def _check_overflow(elements: Any, path: str) -> None:
    sizes = abs(elements)
    for element in elements[(sizes >= _FLOAT_OVERFLOW) & (sizes != math.inf)][:1].tolist():
        raise _overflow(element, path)


def _overflow(number: float, path: str) -> ValueError:
    return ValueError(f"{path}: {number!r} is too large for a float of 32 bits")


def read(message: Any) -> Any:
    """The nested lists in a message of data and shape; a bare value if the shape is empty."""
    shape, values = list(message.shape), list(message.data)
    if math.prod(shape) != len(values):
        raise DecodeError(f"a tensor of the shape {shape} has {len(values)} elements")
    if not shape:
        return values[0]
    for size in reversed(shape[1:]):
        values = [values[start : start + size] for start in range(0, len(values), size)] if size else []
    return values if math.prod(shape) else _empty(shape)


def _empty(shape: list[int]) -> list[Any]:
    return [_empty(shape[1:]) for _ in range(shape[0])] if shape else []
