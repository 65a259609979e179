"""Messages as JSON with the names of their fields, for protocols that have the same messages over gRPC and HTTP.

Rule of this module: numbers stay numbers. protobuf's own JSON makes texts of 64-bit integers, which clients of Triton
do not read.
"""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor


def as_json(message: Any) -> dict[str, Any]:
    """Returns a message as JSON, with all fields that have no presence, and the others if they are set.

    Enumerations are names. Fields of bytes are not supported.
    """
    return {
        field.name: _value(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _value(field: FieldDescriptor, value: Any) -> Any:
    message_type = field.message_type
    if message_type is not None and message_type.GetOptions().map_entry:
        single = message_type.fields_by_name["value"]
        return {str(key): _single(single, item) for key, item in value.items()}
    if field.is_repeated:
        return [_single(field, item) for item in value]
    return _single(field, value)


def _single(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return as_json(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value
