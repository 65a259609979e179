"""A file descriptor as the text of a .proto file, with comments.

Rule of this module: the text says what the descriptor says, and protoc makes the same descriptor of it. It needs
protobuf alone: server and client write their .proto files with it.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)

Proto = FieldDescriptorProto

_UNSEEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters (protoc takes NUL for the end of the file, and a new line ends a comment), and what UTF-8 cannot
say."""

Path = tuple[int, ...]
"""Of a declaration: as in google.protobuf.SourceCodeInfo."""
PACKAGE, DEPENDENCY, MESSAGE, ENUM, SERVICE, OPTIONS, SYNTAX = 2, 3, 4, 5, 6, 8, 12
"""Numbers of FileDescriptorProto's fields; MEMBER is that of a message's fields, an enum's values, a service's RPCs."""
MEMBER = 2


def text_of(file: FileDescriptorProto) -> str:
    """The text of a file, with the comments that its source_code_info has in front of declarations.

    Raises:
        ValueError: It is not in proto3, or has what the typed RPCs of models do not need: extensions, or messages and
            enums within messages.

    """
    return "\n".join(_Writer(file).lines) + "\n"


def spans_of(file: FileDescriptorProto) -> dict[Path, list[int]]:
    """Where declarations stand in the text of a file, in their order, as SourceCodeInfo says it; errors as of
    `text_of`.
    """
    return _Writer(file).spans


def visible(text: str) -> str:
    """A text with U+FFFD for what no comment can show."""
    return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text)


class _Writer:
    def __init__(self, file: FileDescriptorProto) -> None:
        within = [
            part
            for message in file.message_type
            for part in (*message.nested_type, *message.enum_type, *message.extension)
            if not (isinstance(part, DescriptorProto) and part.options.map_entry)
        ]
        if file.syntax != "proto3" or file.extension or within:
            raise ValueError(f"{file.name} is not in proto3, or has extensions or messages within messages")
        self._file = file
        self._comments = {tuple(each.path): each.leading_comments for each in file.source_code_info.location}
        self.lines: list[str] = []
        self.spans: dict[Path, list[int]] = {}
        self._head(file)
        for place, service in enumerate(file.service):
            self._service((SERVICE, place), service)
        for place, message in enumerate(file.message_type):
            self._message((MESSAGE, place), message)
        for place, enum in enumerate(file.enum_type):
            self._enum((ENUM, place), enum)

    def _head(self, file: FileDescriptorProto) -> None:
        self._line((SYNTAX,), 'syntax = "proto3";')
        self.lines.append("")
        self._line((PACKAGE,), f"package {file.package};")
        if file.dependency:
            self.lines.append("")
        for place, name in enumerate(file.dependency):
            self._line((DEPENDENCY, place), f"import {_quoted(name)};")
        options = file.options.ListFields()
        if options:
            self.lines.append("")
        for option, value in options:
            said = str(value).lower() if isinstance(value, bool) else _quoted(value)
            self._line((OPTIONS, option.number), f"option {option.name} = {said};")

    def _service(self, path: Path, service: ServiceDescriptorProto) -> None:
        with self._block(path, f"service {service.name}"):
            for place, method in enumerate(service.method):
                if place:
                    self.lines.append("")
                takes = f"{'stream ' if method.client_streaming else ''}{self._local(method.input_type)}"
                gives = f"{'stream ' if method.server_streaming else ''}{self._local(method.output_type)}"
                self._line((*path, MEMBER, place), f"rpc {method.name}({takes}) returns ({gives});", "  ")

    def _enum(self, path: Path, enum: EnumDescriptorProto) -> None:
        with self._block(path, f"enum {enum.name}"):
            self._reserved(enum)
            for place, value in enumerate(enum.value):
                self._line((*path, MEMBER, place), f"{value.name} = {value.number};", "  ")

    def _message(self, path: Path, message: DescriptorProto) -> None:
        if not message.field and not message.reserved_range:
            self.lines.append("")
            self._line(path, f"message {message.name} {{}}")
            return
        with self._block(path, f"message {message.name}"):
            self._reserved(message)
            inside = ""
            for place, field in enumerate(message.field):
                oneof = self._oneof(message, field)
                if inside and oneof != inside:
                    self.lines.append("  }")
                if oneof and oneof != inside:
                    self.lines.append(f"  oneof {oneof} {{")
                inside = oneof
                said = f"{self._typed(message, field)} {field.name} = {field.number};"
                self._line((*path, MEMBER, place), said, "    " if oneof else "  ")
            if inside:
                self.lines.append("  }")

    def _line(self, path: Path, said: str, indent: str = "") -> None:
        """A declaration of one line, behind its comment."""
        self._comment(path, indent)
        self.spans[path] = [len(self.lines), len(indent), len(indent) + len(said)]
        self.lines.append(f"{indent}{said}")

    @contextmanager
    def _block(self, path: Path, head: str) -> Iterator[None]:
        self.lines.append("")
        self._comment(path, "")
        first = len(self.lines)
        self.lines.append(f"{head} {{")
        self.spans[path] = []  # It stands before those of what is in it.
        yield
        self.spans[path] = [first, 0, len(self.lines), 1]
        self.lines.append("}")

    def _comment(self, path: Path, indent: str) -> None:
        comment = self._comments.get(path, "").removesuffix("\n")
        if comment:
            self.lines += [f"{indent}//{visible(line)}".rstrip() for line in comment.split("\n")]

    def _reserved(self, part: DescriptorProto | EnumDescriptorProto) -> None:
        """The numbers, each by itself, and the names that nothing new may have."""
        if part.reserved_range:
            self.lines.append(f"  reserved {', '.join(str(each.start) for each in part.reserved_range)};")
        if part.reserved_name:
            self.lines.append(f"  reserved {', '.join(map(_quoted, part.reserved_name))};")

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


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
