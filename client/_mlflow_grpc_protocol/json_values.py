"""JSON values in google.protobuf.Value."""

import math
from typing import Any

MAX_EXACT_INTEGER = 2**53
"""Integers up to this one are exact as a double."""


def read(value: Any) -> Any:
    """Returns the Python value of a google.protobuf.Value, with integers for whole numbers.

    JSON has only one type of number.
    """
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            is_minus_zero = not number and math.copysign(1, number) < 0  # Integers have no such number.
            is_integer = number.is_integer() and abs(number) <= MAX_EXACT_INTEGER and not is_minus_zero
            return int(number) if is_integer else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "list_value":
            return [read(item) for item in value.list_value.values]
        case "struct_value":
            return {key: read(item) for key, item in value.struct_value.fields.items()}
        case _:
            return None
