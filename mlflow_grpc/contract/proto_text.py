"""A file descriptor as the text of a .proto file, with comments.

Rule of this module: the text says what the descriptor says, and protoc makes the same descriptor of it.
"""

import json
import re
from collections.abc import Iterator, Mapping

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

WIDTH = 100

_UNSEEN = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]")
"""Control characters that are no space (protoc takes NUL for the end of the file), and what UTF-8 cannot say."""

Comments = Mapping[tuple[str, str], str]
"""What is said of a message and its fields, an enum and its values, the service and its RPCs: by the names of the one
and the other; the other is empty for what is said of the whole.
"""

Proto = FieldDescriptorProto


def text_of(file: FileDescriptorProto, comments: Comments) -> str:
    """The text of a file in proto3 whose messages hold no others but those of maps."""
    return "\n".join(_Writer(file, comments).lines()) + "\n"


class _Writer:
    def __init__(self, file: FileDescriptorProto, comments: Comments) -> None:
        self._file = file
        self._comments = comments

    def lines(self) -> Iterator[str]:
        yield from self._comment("", "", "")
        yield 'syntax = "proto3";'
        yield ""
        yield f"package {self._file.package};"
        if self._file.dependency:
            yield ""
            yield from (f'import "{name}";' for name in self._file.dependency)
        for service in self._file.service:
            yield ""
            yield from self._comment(service.name, "", "")
            yield f"service {service.name} {{"
            for place, method in enumerate(service.method):
                if place:
                    yield ""
                yield from self._comment(service.name, method.name, "  ")
                takes = f"{'stream ' if method.client_streaming else ''}{self._local(method.input_type)}"
                gives = f"{'stream ' if method.server_streaming else ''}{self._local(method.output_type)}"
                yield f"  rpc {method.name}({takes}) returns ({gives});"
            yield "}"
        for message in self._file.message_type:
            yield from self._message(message)
        for enum in self._file.enum_type:
            yield from self._enum(enum)

    def _message(self, message: DescriptorProto) -> Iterator[str]:
        yield ""
        yield from self._comment(message.name, "", "")
        if not message.field and not message.reserved_range:
            yield f"message {message.name} {{}}"
            return
        yield f"message {message.name} {{"
        yield from _reserved(message)
        inside = ""
        for field in message.field:
            oneof = self._oneof(message, field)
            if inside and oneof != inside:
                yield "  }"
            if oneof and oneof != inside:
                yield f"  oneof {oneof} {{"
            inside = oneof
            indent = "    " if oneof else "  "
            yield from self._comment(message.name, field.name, indent)
            yield f"{indent}{self._typed(message, field)} {field.name} = {field.number};"
        if inside:
            yield "  }"
        yield "}"

    def _enum(self, enum: EnumDescriptorProto) -> Iterator[str]:
        yield ""
        yield from self._comment(enum.name, "", "")
        yield f"enum {enum.name} {{"
        yield from _reserved(enum)
        for value in enum.value:
            yield from self._comment(enum.name, value.name, "  ")
            yield f"  {value.name} = {value.number};"
        yield "}"

    @staticmethod
    def _oneof(message: DescriptorProto, field: FieldDescriptorProto) -> str:
        """The oneof that a field stands in; that of an `optional` field is not written."""
        is_in = field.HasField("oneof_index") and not field.proto3_optional
        return message.oneof_decl[field.oneof_index].name if is_in else ""

    def _typed(self, message: DescriptorProto, field: FieldDescriptorProto) -> str:
        if field.label != Proto.LABEL_REPEATED:
            return f"{'optional ' if field.proto3_optional else ''}{self._type(field)}"
        entry = next(
            (each for each in message.nested_type if field.type_name.endswith(f".{message.name}.{each.name}")), None
        )
        if entry is None:
            return f"repeated {self._type(field)}"
        key, value = entry.field
        return f"map<{self._type(key)}, {self._type(value)}>"

    def _type(self, field: FieldDescriptorProto) -> str:
        if field.type_name:
            return self._local(field.type_name)
        return Proto.Type.Name(field.type).removeprefix("TYPE_").lower()

    def _local(self, type_name: str) -> str:
        return type_name.removeprefix(f".{self._file.package}.").removeprefix(".")

    def _comment(self, one: str, other: str, indent: str) -> Iterator[str]:
        for line in _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", self._comments.get((one, other), "")).splitlines():
            words: list[str] = []
            for word in line.split():
                if words and len(f"{indent}// {' '.join([*words, word])}") > WIDTH:
                    yield f"{indent}// {' '.join(words)}"
                    words = []
                words.append(word)
            yield f"{indent}// {' '.join(words)}".rstrip()


def _reserved(part: DescriptorProto | EnumDescriptorProto) -> Iterator[str]:
    """The numbers, each by itself, and the names that nothing new may have."""
    if part.reserved_range:
        yield f"  reserved {', '.join(str(each.start) for each in part.reserved_range)};"
    if part.reserved_name:
        yield f"  reserved {', '.join(json.dumps(name) for name in part.reserved_name)};"
