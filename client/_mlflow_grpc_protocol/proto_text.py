"""The text of a .proto file, with comments, from a file descriptor.

Rule of this module: protoc makes the same descriptor from the text. The module needs protobuf only, because server and
client write their .proto files with it.
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

_INVISIBLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters and lone surrogates. protoc takes NUL for the end of the file, a new line ends a comment, and
UTF-8 cannot encode a surrogate."""

Path = tuple[int, ...]
"""Path of a declaration, as in google.protobuf.SourceCodeInfo."""
PACKAGE, DEPENDENCY, MESSAGE, ENUM, SERVICE, OPTIONS, SYNTAX = 2, 3, 4, 5, 6, 8, 12
"""Numbers of FileDescriptorProto's fields."""
MEMBER = 2
"""Number of a message's fields, an enum's values and a service's methods, in their descriptors."""


def text_of(file: FileDescriptorProto) -> str:
    """Writes a file as text, with the leading comments in its source_code_info.

    Raises:
        ValueError: The file is not in proto3, or has extensions, or messages or enums within messages. The typed RPCs
            of models need none of these.

    """
    return "\n".join(_Writer(file).lines) + "\n"


def spans_of(file: FileDescriptorProto) -> dict[Path, list[int]]:
    """Finds the declarations in the text of a file: their spans as in SourceCodeInfo, in the order of the text.

    Raises:
        ValueError: See `text_of`.

    """
    return _Writer(file).spans


def visible(text: str) -> str:
    """Replaces each character that no comment can show with U+FFFD."""
    return _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", text)


class _Writer:
    def __init__(self, file: FileDescriptorProto) -> None:
        nested = [
            declaration
            for message in file.message_type
            for declaration in (*message.nested_type, *message.enum_type, *message.extension)
            if not (isinstance(declaration, DescriptorProto) and declaration.options.map_entry)
        ]
        if file.syntax != "proto3" or file.extension or nested:
            raise ValueError(f"{file.name} is not in proto3, or has extensions or messages within messages")
        self._file = file
        self._comments = {
            tuple(location.path): location.leading_comments for location in file.source_code_info.location
        }
        self.lines: list[str] = []
        self.spans: dict[Path, list[int]] = {}
        self._head(file)
        for index, service in enumerate(file.service):
            self._service((SERVICE, index), service)
        for index, message in enumerate(file.message_type):
            self._message((MESSAGE, index), message)
        for index, enum in enumerate(file.enum_type):
            self._enum((ENUM, index), enum)

    def _head(self, file: FileDescriptorProto) -> None:
        self._line((SYNTAX,), 'syntax = "proto3";')
        self.lines.append("")
        self._line((PACKAGE,), f"package {file.package};")
        if file.dependency:
            self.lines.append("")
        for index, name in enumerate(file.dependency):
            self._line((DEPENDENCY, index), f"import {_quoted(name)};")
        options = file.options.ListFields()
        if options:
            self.lines.append("")
        for option, value in options:
            text = str(value).lower() if isinstance(value, bool) else _quoted(value)
            self._line((OPTIONS, option.number), f"option {option.name} = {text};")

    def _service(self, path: Path, service: ServiceDescriptorProto) -> None:
        with self._block(path, f"service {service.name}"):
            for index, method in enumerate(service.method):
                if index:
                    self.lines.append("")
                request = f"{'stream ' if method.client_streaming else ''}{self._local(method.input_type)}"
                response = f"{'stream ' if method.server_streaming else ''}{self._local(method.output_type)}"
                self._line((*path, MEMBER, index), f"rpc {method.name}({request}) returns ({response});", "  ")

    def _enum(self, path: Path, enum: EnumDescriptorProto) -> None:
        with self._block(path, f"enum {enum.name}"):
            self._reserved(enum)
            for index, value in enumerate(enum.value):
                self._line((*path, MEMBER, index), f"{value.name} = {value.number};", "  ")

    def _message(self, path: Path, message: DescriptorProto) -> None:
        if not message.field and not message.reserved_range:
            self.lines.append("")
            self._line(path, f"message {message.name} {{}}")
            return
        with self._block(path, f"message {message.name}"):
            self._reserved(message)
            current = ""
            for index, field in enumerate(message.field):
                oneof = self._oneof(message, field)
                if current and oneof != current:
                    self.lines.append("  }")
                if oneof and oneof != current:
                    self.lines.append(f"  oneof {oneof} {{")
                current = oneof
                text = f"{self._typed(message, field)} {field.name} = {field.number};"
                self._line((*path, MEMBER, index), text, "    " if oneof else "  ")
            if current:
                self.lines.append("  }")

    def _line(self, path: Path, text: str, indent: str = "") -> None:
        """Writes a declaration of a single line, after its comment."""
        self._comment(path, indent)
        self.spans[path] = [len(self.lines), len(indent), len(indent) + len(text)]
        self.lines.append(f"{indent}{text}")

    @contextmanager
    def _block(self, path: Path, head: str) -> Iterator[None]:
        self.lines.append("")
        self._comment(path, "")
        first = len(self.lines)
        self.lines.append(f"{head} {{")
        self.spans[path] = []  # The span of the block comes before those of its members.
        yield
        self.spans[path] = [first, 0, len(self.lines), 1]
        self.lines.append("}")

    def _comment(self, path: Path, indent: str) -> None:
        comment = self._comments.get(path, "").removesuffix("\n")
        if comment:
            self.lines += [f"{indent}//{visible(line)}".rstrip() for line in comment.split("\n")]

    def _reserved(self, declaration: DescriptorProto | EnumDescriptorProto) -> None:
        """Writes the reserved numbers and names."""
        if declaration.reserved_range:
            numbers = (str(reserved.start) for reserved in declaration.reserved_range)
            self.lines.append(f"  reserved {', '.join(numbers)};")
        if declaration.reserved_name:
            self.lines.append(f"  reserved {', '.join(map(_quoted, declaration.reserved_name))};")

    @staticmethod
    def _oneof(message: DescriptorProto, field: FieldDescriptorProto) -> str:
        """The name of a field's oneof; empty for an `optional` field, whose oneof is not in the text."""
        has_oneof = field.HasField("oneof_index") and not field.proto3_optional
        return message.oneof_decl[field.oneof_index].name if has_oneof else ""

    def _typed(self, message: DescriptorProto, field: FieldDescriptorProto) -> str:
        if field.label != Proto.LABEL_REPEATED:
            return f"{'optional ' if field.proto3_optional else ''}{self._type(field)}"
        suffix = field.type_name.rpartition(f".{message.name}.")[2]
        entry = next((nested for nested in message.nested_type if nested.name == suffix), None)
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
