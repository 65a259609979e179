"""Fields of messages as descriptors.

Rule of this module: it writes descriptors for shapes, and makes no decisions.
"""

from collections.abc import Callable
from dataclasses import replace

from _mlflow_grpc_protocol.field_numbers import NULL_ITEMS_NUMBER, NULLS_NUMBER
from _mlflow_grpc_protocol.shapes import (
    EnumShape,
    FieldShape,
    MessageShape,
    OneofShape,
    ScalarShape,
    Shape,
    TensorShape,
    TimestampShape,
    ValueShape,
    WrapperShape,
)
from _mlflow_grpc_protocol.typed_terms import Cardinality
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from mlflow_grpc.contract.names import entry_name

PACKAGE = "model_grpc_service"

MAX_FIELDS = 4_000
"""Maximum columns of a message, because protobuf has 64 KB for the fields of a message that contains messages: 16 bytes
each."""


def add_field(
    descriptor: DescriptorProto,
    name: str,
    number: int,
    shape: Shape,
    cardinality: Cardinality = Cardinality.SINGULAR,
    *,
    oneof: int | None = None,
) -> None:
    """Adds a field to a message.

    Args:
        descriptor: The message.
        name: Name of the field.
        number: Number of the field.
        shape: Shape of its values.
        cardinality: How many values it holds.
        oneof: Index of the oneof that it is in; None for a field outside of any.

    """
    field = descriptor.field.add(name=name, number=number, label=Proto.LABEL_OPTIONAL)
    if cardinality is Cardinality.MAP:
        entry = descriptor.nested_type.add(name=entry_name(name))
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=Proto.LABEL_OPTIONAL, type=Proto.TYPE_STRING)
        _set_type(entry.field.add(name="value", number=2, label=Proto.LABEL_OPTIONAL), shape)
        field.label, field.type = Proto.LABEL_REPEATED, Proto.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{descriptor.name}.{entry.name}"
        return
    _set_type(field, shape)
    if cardinality is Cardinality.REPEATED:
        field.label = Proto.LABEL_REPEATED
    elif oneof is not None:
        field.oneof_index = oneof
    elif field.type != Proto.TYPE_MESSAGE:
        # `optional` is a oneof with a single field in a descriptor (protobuf's docs/implementing_proto3_presence.md).
        field.proto3_optional = True
        field.oneof_index = len(descriptor.oneof_decl)
        descriptor.oneof_decl.add(name=f"_{name}")


def add_nulls(
    descriptor: DescriptorProto,
    fields: dict[int, FieldShape],
    nulls_name: Callable[[str], str],
    comments: dict[tuple[str, str], str],
) -> dict[int, FieldShape]:
    """Adds a field beside each list and map of an answer that is true if the list or map is null.

    Models predict None for lists and maps too, required or not. Clients that do not know the added fields read messages
    as before.

    Args:
        descriptor: The message.
        fields: Its fields.
        nulls_name: Makes the name of the field with the nulls of a field.
        comments: Comments of all fields, by the names of message and field.

    Returns:
        The fields, with the names of the added ones.
    """
    for index, field in fields.items():
        if not field.is_singular:
            fields[index] = replace(field, null_flag=nulls_name(field.name))
            add_field(descriptor, fields[index].null_flag, NULLS_NUMBER + field.number, ScalarShape(Proto.TYPE_BOOL))
            comments[descriptor.name, fields[index].null_flag] = f"True if {field.name} is null, and not empty."
    return fields


def add_null_items(
    descriptor: DescriptorProto,
    field: FieldShape,
    null_items_name: Callable[[str, Cardinality], str],
    comments: dict[tuple[str, str], str],
) -> FieldShape:
    """Adds a field beside a list or map with the indices or keys of its null items.

    Clients that do not know the added field read the list as before, with a filler value for each null.

    Args:
        descriptor: The message.
        field: The field of the list or map.
        null_items_name: Makes the name of the added field, from the name and cardinality of the list or map.
        comments: Comments of all fields, by the names of message and field.

    Returns:
        The field, with the name of the added one.

    """
    name = null_items_name(field.name, field.cardinality)
    shape = ScalarShape(Proto.TYPE_STRING if field.is_map else Proto.TYPE_UINT64)
    add_field(descriptor, name, NULL_ITEMS_NUMBER + field.number, shape, Cardinality.REPEATED)
    comments[descriptor.name, name] = (
        f"Keys whose value is null. They are here and not in {field.name}."
        if field.is_map
        else f"Indices of the nulls in {field.name}, counted from 0. The value at such an index has no meaning."
    )
    return replace(field, null_items=name)


def _set_type(field: Proto, shape: Shape) -> None:
    match shape:
        case ScalarShape():
            field.type = shape.type
        case EnumShape():
            field.type, field.type_name = Proto.TYPE_ENUM, f".{PACKAGE}.{shape.enum}"
        case TimestampShape():
            field.type, field.type_name = Proto.TYPE_MESSAGE, f".{timestamp_pb2.Timestamp.DESCRIPTOR.full_name}"
        case ValueShape():
            field.type, field.type_name = Proto.TYPE_MESSAGE, f".{struct_pb2.Value.DESCRIPTOR.full_name}"
        case MessageShape():
            field.type, field.type_name = Proto.TYPE_MESSAGE, f".{PACKAGE}.{shape.name}"
        case TensorShape() | OneofShape() | WrapperShape():
            field.type, field.type_name = Proto.TYPE_MESSAGE, f".{PACKAGE}.{shape.message}"
