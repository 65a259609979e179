"""Pages of the site about the .proto files: services, RPCs, messages and fields with the comments of the files.

Rule of this module: it turns descriptors into Markdown. `generate_protos` compiles the files.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)

from scripts.generate_protos import OPEN_INFERENCE_SOURCES, PACKAGED, ROOT, SOURCES, compile_files

FOLDER = "docs/protos"
"""Folder of the pages in the site."""

Position = tuple[int, ...]
"""Position of a declaration in its file, as in google.protobuf.SourceCodeInfo."""

MESSAGES, ENUMS, SERVICES = 4, 5, 6
FIELDS_OF_MESSAGE, MESSAGES_OF_MESSAGE, ENUMS_OF_MESSAGE = 2, 3, 4
VALUES_OF_ENUM, RPCS_OF_SERVICE = 2, 2
SYNTAX = 12


def pages() -> dict[str, str]:
    """Returns the Markdown of each page, by its path in the site."""
    files = [*compile_files(SOURCES), *compile_files(OPEN_INFERENCE_SOURCES)]
    return {page_of(file.name): "\n".join(_File(file).lines()) for file in files}


def paths() -> dict[str, str]:
    """Returns the path of each page in the site, by the path of the .proto file in the repository."""
    names = (*SOURCES, *OPEN_INFERENCE_SOURCES)
    return {source_of(name).relative_to(ROOT).as_posix(): page_of(name) for name in names}


def source_of(name: str) -> Path:
    """Returns a .proto file by the name with which others import it."""
    return next(path for path in (ROOT / name, PACKAGED / name) if path.exists())


def page_of(name: str) -> str:
    """Returns the path of a file's page in the site."""
    return f"{FOLDER}/{Path(name).stem.replace('_', '-')}.md"


class _File:
    """One .proto file with its comments."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._comments: dict[Position, str] = {}
        for location in file.source_code_info.location:
            text = "".join([*location.leading_detached_comments, location.leading_comments, location.trailing_comments])
            self._comments[tuple(location.path)] = text

    def lines(self) -> Iterator[str]:
        """Yields the lines of the page."""
        file = self._file
        source = source_of(file.name)
        yield f"# {Path(file.name).name}\n"
        yield "After this page you know the services and messages of this file, with their field numbers.\n"
        yield f"{self._comment(SYNTAX)}\n"
        package = f"Its package is `{file.package}`." if file.package else "It has no package."
        yield f"The file is `{source.relative_to(ROOT).as_posix()}`. {package} The [whole file](#source) is below.\n"
        for index, service in enumerate(file.service):
            yield from self._service(service, (SERVICES, index))
        for index, message in enumerate(file.message_type):
            yield from self._message(message, (MESSAGES, index), ())
        for index, enum in enumerate(file.enum_type):
            yield from self._enum(enum, (ENUMS, index), ())
        yield "## Source\n"
        yield f"```proto\n{source.read_text().rstrip()}\n```\n"

    def _comment(self, *at: int) -> str:
        """Returns a comment as Markdown, with its paragraphs and without its line breaks."""
        paragraphs = re.split(r"\n\s*\n", self._comments.get(at, "").strip())
        return "\n\n".join(" ".join(_escaped(line) for line in text.split("\n")) for text in paragraphs)

    def _cell(self, *at: int) -> str:
        return self._comment(*at).replace("\n\n", "<br>").replace("|", "\\|")

    def _service(self, service: ServiceDescriptorProto, at: Position) -> Iterator[str]:
        yield f"## Service {service.name}\n"
        yield f"{self._comment(*at)}\n"
        yield "| RPC | request | response | meaning |\n|---|---|---|---|"
        for index, rpc in enumerate(service.method):
            request = _type(rpc.input_type, self._file.package, is_stream=rpc.client_streaming)
            response = _type(rpc.output_type, self._file.package, is_stream=rpc.server_streaming)
            yield f"| `{rpc.name}` | {request} | {response} | {self._cell(*at, RPCS_OF_SERVICE, index)} |"
        yield ""

    def _message(self, message: DescriptorProto, at: Position, outer: Sequence[str]) -> Iterator[str]:
        if message.options.map_entry:
            return
        names = (*outer, message.name)
        yield f"## {'.'.join(names)}\n"
        yield f"{self._comment(*at)}\n"
        if message.field:
            yield "| number | field | type | meaning |\n|---|---|---|---|"
            for index, field in enumerate(message.field):
                name = f"`{field.name}`{_oneof(message, field)}"
                yield f"| {field.number} | {name} | {self._field_type(message, field)} | " + (
                    f"{self._cell(*at, FIELDS_OF_MESSAGE, index)} |"
                )
            yield ""
        else:
            yield "It has no fields.\n"
        for index, nested in enumerate(message.nested_type):
            yield from self._message(nested, (*at, MESSAGES_OF_MESSAGE, index), names)
        for index, enum in enumerate(message.enum_type):
            yield from self._enum(enum, (*at, ENUMS_OF_MESSAGE, index), names)

    def _enum(self, enum: EnumDescriptorProto, at: Position, outer: Sequence[str]) -> Iterator[str]:
        yield f"## {'.'.join((*outer, enum.name))}\n"
        yield f"{self._comment(*at)}\n"
        yield "| number | value | meaning |\n|---|---|---|"
        for index, value in enumerate(enum.value):
            yield f"| {value.number} | `{value.name}` | {self._cell(*at, VALUES_OF_ENUM, index)} |"
        yield ""

    def _field_type(self, message: DescriptorProto, field: FieldDescriptorProto) -> str:
        package = self._file.package
        for nested in message.nested_type:
            if nested.options.map_entry and field.type_name.endswith(f".{message.name}.{nested.name}"):
                key, value = (_scalar_or_name(entry, package) for entry in nested.field)
                return f"`map<{key}, {value}>`"
        label = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
        label = "optional " if field.proto3_optional else label
        return f"`{label}{_scalar_or_name(field, package)}`"


def _oneof(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    if not field.HasField("oneof_index") or field.proto3_optional:
        return ""
    return f", one of `{message.oneof_decl[field.oneof_index].name}`"


def _scalar_or_name(field: FieldDescriptorProto, package: str) -> str:
    if field.type_name:
        return field.type_name.removeprefix(".").removeprefix(f"{package}.")
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _type(name: str, package: str, *, is_stream: bool) -> str:
    return f"`{'stream ' if is_stream else ''}{name.removeprefix('.').removeprefix(f'{package}.')}`"


def _escaped(line: str) -> str:
    """Escapes what Markdown would not show as it is, outside of inline code."""
    pieces = line.strip().split("`")
    pieces[::2] = [re.sub(r"([*_<>\[\]])", r"\\\1", piece) for piece in pieces[::2]]
    return "`".join(pieces)
