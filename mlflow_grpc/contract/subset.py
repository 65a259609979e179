"""The file of the typed messages with the RPCs of some models only, for callers that may not see the others.

Rule of this module: it removes what the remaining RPCs do not use, and changes no name and no number.
"""

from collections.abc import Collection, Iterator

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto


def subset(file: FileDescriptorProto, rpcs: Collection[str]) -> FileDescriptorProto:
    """Returns a copy of a file with some of its RPCs, and the messages and enums that these use.

    Args:
        file: The file, with one service, and without comments.
        rpcs: Names of the RPCs.

    """
    copy = FileDescriptorProto()
    copy.CopyFrom(file)
    service = copy.service[0]
    methods = [method for method in file.service[0].method if method.name in rpcs]
    service.ClearField("method")
    service.method.extend(methods)

    messages = {f".{file.package}.{message.name}": message for message in file.message_type}
    used: set[str] = set()
    pending = [name for method in methods for name in (method.input_type, method.output_type)]
    while pending:
        name = pending.pop()
        if name not in used:
            used.add(name)
            pending += _types(messages[name]) if name in messages else ()

    copy.ClearField("message_type")
    copy.message_type.extend(message for name, message in messages.items() if name in used)
    copy.ClearField("enum_type")
    copy.enum_type.extend(enum for enum in file.enum_type if f".{file.package}.{enum.name}" in used)
    return copy


def _types(message: DescriptorProto) -> Iterator[str]:
    """Yields the types of the fields of a message and of the entries of its maps."""
    for descriptor in (message, *message.nested_type):
        yield from (field.type_name for field in descriptor.field if field.type_name)
