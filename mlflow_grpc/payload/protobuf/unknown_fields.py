"""Fields of a message that its type does not have: of callers whose .proto is another one.

Rule of this module: protobuf keeps no names of them, so they are told by their numbers, behind the names of the fields
that they are in: `17`, `address.17`.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.unknown_fields import UnknownFieldSet


def are_at_top(message: Any) -> bool:
    """Whether a message has such fields itself."""
    return len(UnknownFieldSet(message)) > 0


def are_within(message: Any) -> bool:
    """Whether a message has such fields, or one within it; without a Python object for each of these."""
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return bool(known.ByteSize() != message.ByteSize())


def numbers(message: Any, path: str = "") -> Iterator[str]:
    """What they are called, each once for each place that has it."""
    unknown = UnknownFieldSet(message)
    yield from (f"{path}{number}" for number in sorted({unknown[place].field_number for place in range(len(unknown))}))
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        within = f"{path}{field.name}."
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                for each in value.values():
                    yield from numbers(each, within)
        elif _is_repeated(field):
            for each in value:
                yield from numbers(each, within)
        else:
            yield from numbers(value, within)


def _is_repeated(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated)
