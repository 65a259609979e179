"""JSON values in google.protobuf.Value."""

import math
from typing import Any

MAX_EXACT_INTEGER = 2**53
"""Integers up to this one are exact as a double."""

MAX_MESSAGES = 96
"""Maximum nesting of messages in a Value. protobuf reads 100 by default in Python, Java and C++, and a few may be
around the Value, such as those of a record and a list."""
LIST_MESSAGES, OBJECT_MESSAGES = 2, 3
"""Messages between a list or an object and its items: ListValue, Value; Struct, the entry of its map, Value."""
MAX_LISTS, MAX_OBJECTS = MAX_MESSAGES // LIST_MESSAGES, MAX_MESSAGES // OBJECT_MESSAGES


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
