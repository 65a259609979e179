"""Fields of a message that its type does not have, as sent by callers with another version of the .proto file.

Rule of this module: it reports a field by its number, because protobuf keeps no name for it. The number follows the
names of the enclosing fields: `17`, `address.17`.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.unknown_fields import UnknownFieldSet


def at_top_level(message: Any) -> bool:
    """Returns True if the message itself has unknown fields."""
    return len(UnknownFieldSet(message)) > 0


def at_any_level(message: Any) -> bool:
    """Returns True if the message or a message inside it has unknown fields.

    It compares sizes, which needs no Python object for each inner message.
    """
    declared = type(message)()
    declared.CopyFrom(message)
    declared.DiscardUnknownFields()
    return bool(declared.ByteSize() != message.ByteSize())


def paths(message: Any, path: str = "") -> Iterator[str]:
    """Yields the path of each unknown field, once for each message that has it."""
    unknown = UnknownFieldSet(message)
    yield from (f"{path}{number}" for number in sorted({unknown[index].field_number for index in range(len(unknown))}))
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        prefix = f"{path}{field.name}."
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                for item in value.values():
                    yield from paths(item, prefix)
        elif _is_repeated(field):
            for item in value:
                yield from paths(item, prefix)
        else:
            yield from paths(value, prefix)


def _is_repeated(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated)
