"""Arrays and nested lists into messages of data and shape, and out of them.

Rule of this module: the numbers of an array do not become Python objects where bytes will do. numpy is not imported.
"""

import math
import struct
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from mlflow_grpc_client._payloads import library
from mlflow_grpc_client._typed.contract import Kind, Type

_LEAST_TOO_LARGE = (2 - 2**-24) * 2.0**127
"""What is rounded to infinity as a float of 32 bits; what is less is rounded to the largest at the most."""

MOST_SIZES = 64
"""How deep lists are nested at the most, as in numpy: one that contains itself has no end."""

Scalar = Callable[[Any, Type, str], Any]

_AS_BYTES = {Kind.DOUBLE: ("f8", "<f8"), Kind.FLOAT: ("f4", "<f4"), Kind.BOOLEAN: ("b1", "u1")}
"""The arrays whose bytes are the packed field, and as which type."""

_FLOATS = {Kind.DOUBLE: "f8", Kind.FLOAT: "f4"}
_EXACT_IN = {
    Kind.DOUBLE: ("f4", "f2", "i4", "i2", "i1", "u4", "u2", "u1"),
    Kind.FLOAT: ("f2", "i2", "i1", "u2", "u1"),
}
"""The arrays whose numbers are all floats, too."""

_ROOMS = {Kind.DOUBLE: "iuf", Kind.FLOAT: "iuf", Kind.INTEGER: "iu", Kind.BOOLEAN: "b"}
"""The kinds of arrays that may hold what a field takes, before single values are looked at."""


def write(message: Any, kind: Type, value: Any, where: str, scalar: Scalar) -> None:
    """Writes an array, a nested list or a single value into an empty message of `data` and `shape`.

    Args:
        message: The message.
        kind: What the elements are.
        value: The array.
        where: What it is called in errors.
        scalar: Makes one value fit, or refuses it.

    Raises:
        TypeError: The elements are of another type.
        ValueError: A nested list is no array, or an element does not fit.

    """
    shape, elements = flatten(value, where)
    message.shape.extend(shape)
    extend(message, "data", kind, elements, where, scalar)


def flatten(value: Any, where: str) -> tuple[tuple[int, ...], Any]:
    """The shape and the elements in order: a flat array, or a list.

    Raises:
        ValueError: A nested list has lists of several sizes.

    """
    if isinstance(value, library("numpy", "ndarray")):
        check_unmasked(value, where)
        return value.shape, value.reshape(-1)
    elements: list[Any] = [value]
    shape: list[int] = []
    while elements and _is_nested(elements[0]):
        size = len(elements[0])
        if not all(_is_nested(each) and len(each) == size for each in elements):
            raise ValueError(f"{where}: the lists within are not all of one size")
        if len(shape) == MOST_SIZES:
            raise ValueError(f"{where}: it is nested too deeply, or contains itself")
        shape.append(size)
        elements = [item for each in elements for item in each]
    return tuple(shape), elements


def _is_nested(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, library("numpy", "ndarray")) and value.ndim > 0)


def check_unmasked(array: Any, where: str) -> None:
    """Refuses an array with values that are masked: what is under the mask is not to be seen.

    Raises:
        ValueError: It has.

    """
    if isinstance(array, library("numpy.ma", "MaskedArray")) and array.mask.any():
        raise ValueError(f"{where}: the array has masked values: fill them, such as with filled(nan)")


def single(number: float, where: str) -> float:
    """A number rounded to 32 bits.

    Raises:
        ValueError: It is too large.

    """
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", number))
    except OverflowError:
        raise ValueError(f"{where}: {number!r} is too large for a float of 32 bits") from None
    return float(rounded)


def extend(message: Any, name: str, kind: Type, elements: Any, where: str, scalar: Scalar) -> None:
    """Adds elements, as of `flatten`, to a repeated field of scalars; see `write` for the errors."""
    if not isinstance(elements, library("numpy", "ndarray")):
        getattr(message, name).extend([scalar(each, kind, where) for each in elements])
        return
    own, packed = _AS_BYTES.get(kind.kind, ("", ""))
    if kind.kind is Kind.FLOAT and elements.dtype.str[1:] == "f8":
        _check_floats(elements, where)
        elements = elements.astype("f4")
    elif kind.kind in _FLOATS and elements.dtype.str[1:] in _EXACT_IN[kind.kind]:
        elements = elements.astype(_FLOATS[kind.kind])
    if own and elements.dtype.str[1:] == own:
        number = message.DESCRIPTOR.fields_by_name[name].number
        if elements.size:
            message.MergeFromString(_packed(number, elements.astype(packed).tobytes()))
        return
    if kind.kind in _ROOMS and elements.dtype.kind not in f"{_ROOMS[kind.kind]}O":
        raise TypeError(f"{where}: an array of {elements.dtype} does not fit, the model takes {kind.kind.name.lower()}")
    if kind.kind is Kind.INTEGER and elements.dtype.kind in "iu":
        _check_bounds(elements, kind.bounds, where)
        getattr(message, name).extend(elements.tolist())
        return
    getattr(message, name).extend([scalar(each, kind, where) for each in elements.tolist()])


def _check_bounds(elements: Any, bounds: tuple[int, int], where: str) -> None:
    for end in (elements.min(), elements.max()) if elements.size else ():
        if not bounds[0] <= int(end) <= bounds[1]:
            raise ValueError(f"{where}: {end} is not within {bounds[0]} and {bounds[1]}")


def _check_floats(elements: Any, where: str) -> None:
    sizes = abs(elements)
    for each in elements[(sizes >= _LEAST_TOO_LARGE) & (sizes != math.inf)][:1].tolist():
        raise ValueError(f"{where}: {each!r} is too large for a float of 32 bits")


def _packed(number: int, data: bytes) -> bytes:
    """A field of length-delimited bytes on the wire."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:  # noqa: PLR2004
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def read(message: Any) -> Any:
    """The nested lists of a message of data and shape; the bare value where it has no sizes.

    Raises:
        DecodeError: It has another number of elements than its shape says.

    """
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
