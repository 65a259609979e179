"""Fields of messages as descriptors.

Rule of this module: it writes what a shape says, and decides nothing.
"""

from collections.abc import Callable
from dataclasses import replace

from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from mlflow_grpc.contract.lock import MOST
from mlflow_grpc.contract.names import entry_name
from mlflow_grpc.contract.shapes import Array, Boxed, Message, OneOf, Plain, Shape, Slot, Timestamp, Value, Words

PACKAGE = "model_grpc_service"

NULLS_NUMBER = MOST + 1
"""What is added to the number of a column for that of the field with its nulls."""

NULL_ITEMS_NUMBER = 2 * NULLS_NUMBER
"""And for that of the field which tells the nulls within a list or map: no column and no other such field has it."""

Proto = FieldDescriptorProto


def add_field(
    descriptor: DescriptorProto, name: str, number: int, shape: Shape, form: str, *, oneof: int | None = None
) -> None:
    """Adds a field to a message.

    Args:
        descriptor: The message.
        name: The field's name.
        number: And its number.
        shape: What stands in it.
        form: Whether it is `one`, a `list` or a `map` of those.
        oneof: The place of the oneof that it is in; None if it is in none.

    """
    made = descriptor.field.add(name=name, number=number, label=Proto.LABEL_OPTIONAL)
    if form == "map":
        entry = descriptor.nested_type.add(name=entry_name(name))
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=Proto.LABEL_OPTIONAL, type=Proto.TYPE_STRING)
        _set_type(entry.field.add(name="value", number=2, label=Proto.LABEL_OPTIONAL), shape)
        made.label, made.type = Proto.LABEL_REPEATED, Proto.TYPE_MESSAGE
        made.type_name = f".{PACKAGE}.{descriptor.name}.{entry.name}"
        return
    _set_type(made, shape)
    if form == "list":
        made.label = Proto.LABEL_REPEATED
    elif oneof is not None:
        made.oneof_index = oneof
    elif made.type != Proto.TYPE_MESSAGE:
        # What `optional` is in a descriptor: a oneof of its own (protobuf's docs/implementing_proto3_presence.md).
        made.proto3_optional = True
        made.oneof_index = len(descriptor.oneof_decl)
        descriptor.oneof_decl.add(name=f"_{name}")


def add_nulls(
    descriptor: DescriptorProto,
    slots: dict[int, Slot],
    names: Callable[[str], str],
    comments: dict[tuple[str, str], str],
) -> dict[int, Slot]:
    """Adds a field beside each list and map of an answer that is empty if it is left out: whether there is none.

    Models predict None for lists and maps too, required or not; messages that were made without these fields are read
    as before.

    Args:
        descriptor: The message.
        slots: Its fields.
        names: Gives the name of the field with the nulls of another one.
        comments: Of all fields, by the names of their messages and their own.

    Returns:
        The slots, which know of these fields.

    """
    for place, slot in slots.items():
        if slot.form != "one":
            slots[place] = replace(slot, null=names(slot.name))
            add_field(descriptor, slots[place].null, NULLS_NUMBER + slot.number, Plain(Proto.TYPE_BOOL), "one")
            comments[descriptor.name, slots[place].null] = (
                f"True if there is no {slot.name}: it is not an empty one then."
            )
    return slots


def add_null_items(
    descriptor: DescriptorProto,
    slot: Slot,
    names: Callable[[str, str], str],
    comments: dict[tuple[str, str], str],
) -> Slot:
    """Adds a field beside a list or map: which of its values are null.

    Those who do not know the field read the list as before, with something else in these places.

    Args:
        descriptor: The message.
        slot: The field of the list or map.
        names: Gives the name of such a field, for the name of the list or map and which of the two it is.
        comments: Of all fields, by the names of their messages and their own.

    Returns:
        The slot, which knows of the field.

    """
    made = names(slot.name, slot.form)
    kind = Proto.TYPE_STRING if slot.form == "map" else Proto.TYPE_UINT64
    add_field(descriptor, made, NULL_ITEMS_NUMBER + slot.number, Plain(kind), "list")
    comments[descriptor.name, made] = (
        f"The keys whose value is null: they stand here instead of in {slot.name}."
        if slot.form == "map"
        else f"The places in {slot.name}, counted from 0, that are null: what stands there is of no meaning."
    )
    return replace(slot, null_items=made)


def _set_type(made: FieldDescriptorProto, shape: Shape) -> None:
    match shape:
        case Plain():
            made.type = shape.type
        case Words():
            made.type, made.type_name = Proto.TYPE_ENUM, f".{PACKAGE}.{shape.enum}"
        case Timestamp():
            made.type, made.type_name = Proto.TYPE_MESSAGE, f".{timestamp_pb2.Timestamp.DESCRIPTOR.full_name}"
        case Value():
            made.type, made.type_name = Proto.TYPE_MESSAGE, f".{struct_pb2.Value.DESCRIPTOR.full_name}"
        case Message():
            made.type, made.type_name = Proto.TYPE_MESSAGE, f".{PACKAGE}.{shape.name}"
        case Array() | OneOf() | Boxed():
            made.type, made.type_name = Proto.TYPE_MESSAGE, f".{PACKAGE}.{shape.message}"
