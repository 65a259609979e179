"""Values of scalar fields: ranges, Python types, and the fillers of nulls.

Rule of this module: it changes no value.
"""

import math
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from _mlflow_grpc_protocol.shapes import ScalarShape, Shape

INTEGER_BOUNDS: dict[int, tuple[int, int]] = {
    Proto.TYPE_INT32: (-(2**31), 2**31 - 1),
    Proto.TYPE_UINT32: (0, 2**32 - 1),
    Proto.TYPE_INT64: (-(2**63), 2**63 - 1),
    Proto.TYPE_UINT64: (0, 2**64 - 1),
}
"""Lowest and highest value of each integer type."""

FLOATS = frozenset({Proto.TYPE_DOUBLE, Proto.TYPE_FLOAT})

NATIVE_TYPES: dict[int, type] = {
    Proto.TYPE_BOOL: bool,
    Proto.TYPE_DOUBLE: float,
    Proto.TYPE_STRING: str,
    **dict.fromkeys(INTEGER_BOUNDS, int),
}
"""Python type whose values a field either stores unchanged or refuses, by the field's protobuf type."""

_FILLERS = {Proto.TYPE_BOOL: False, Proto.TYPE_STRING: "", Proto.TYPE_BYTES: b"", **dict.fromkeys(FLOATS, 0.0)}


def try_extend(container: Any, values: Any) -> bool:
    """Writes values of the field's native type unchanged into an empty repeated field.

    Returns False, with nothing written, if the field refuses a value. The caller then writes the values one by one,
    which raises the error.
    """
    try:
        container.extend(values)
    except (ValueError, OverflowError):  # An integer out of range, or a text with a lone surrogate.
        del container[:]
        return False
    return True


def row_filler(shape: Shape) -> Any:
    """Returns the value of a column in a null row, which another field marks; 0 for messages, which stay empty."""
    return _FILLERS.get(shape.type, 0) if isinstance(shape, ScalarShape) else 0


def item_filler(shape: Shape) -> Any:
    """Returns the item for a null within a list: NaN for floats, so that readers of the list alone see no number."""
    return math.nan if isinstance(shape, ScalarShape) and shape.type in FLOATS else row_filler(shape)
