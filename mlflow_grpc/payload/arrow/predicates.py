"""Groups of Arrow types that the server treats alike.

Rule of this module: it looks at one Arrow type and knows nothing of models.
"""

from collections.abc import Callable

import pyarrow as pa


def is_text(arrow: pa.DataType) -> bool:
    """Returns True for types of texts."""
    return bool(pa.types.is_string(arrow) or pa.types.is_large_string(arrow) or pa.types.is_string_view(arrow))


def is_bytes(arrow: pa.DataType) -> bool:
    """Returns True for types of bytes."""
    is_sized = pa.types.is_binary(arrow) or pa.types.is_large_binary(arrow) or pa.types.is_fixed_size_binary(arrow)
    return bool(is_sized or pa.types.is_binary_view(arrow))


def is_view(arrow: pa.DataType) -> bool:
    """Returns True for texts and bytes that point into buffers which several of them may share."""
    return bool(pa.types.is_string_view(arrow) or pa.types.is_binary_view(arrow))


def contains(arrow: pa.DataType, is_sought: Callable[[pa.DataType], bool]) -> bool:
    """Returns True for types with a property, and for types that contain one.

    Args:
        arrow: The type.
        is_sought: Returns True for a type with the property.

    """
    inner = (arrow.field(index).type for index in range(arrow.num_fields))
    return is_sought(arrow) or any(contains(type_, is_sought) for type_ in inner)


def is_numeric(arrow: pa.DataType) -> bool:
    """Returns True for integers and floats."""
    return bool(pa.types.is_integer(arrow) or pa.types.is_floating(arrow))


def is_moment(arrow: pa.DataType) -> bool:
    """Returns True for timestamps and dates."""
    return bool(pa.types.is_timestamp(arrow) or pa.types.is_date(arrow))


def is_list(arrow: pa.DataType) -> bool:
    """Returns True for lists of any size."""
    return bool(pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow))
