"""Writes tests/support/public_interfaces.json: the public names that docs/compatibility.md promises to keep.

    python scripts/public_interfaces.py

Run it for a release. A test compares the file with the code, so that no name disappears by accident. Names that are new
need no change of the file before the next release.
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import mlflow_grpc_client
from google.protobuf.descriptor_pb2 import DescriptorProto
from mlflow_grpc_client import errors

from mlflow_grpc import declarations, protos, settings

ROOT = Path(__file__).resolve().parents[1]

TARGET = ROOT / "tests" / "support" / "public_interfaces.json"


def flags() -> Iterator[str]:
    """Yields the flags of `mlflow-grpc serve`."""
    for _, info in settings.fields():
        flag = declarations.flag(info)
        yield from (*flag.names, *filter(None, [flag.off]))


def environment_names() -> Iterator[str]:
    """Yields the environment names of the settings."""
    for _, info in settings.fields():
        yield from declarations.env_names(info)


def wire() -> Iterator[str]:
    """Yields services with their methods, and fields with their numbers and types, of this project's .proto files."""
    for file in protos.files():
        prefix = f"{file.package}." if file.package else ""
        for service in file.service:
            for method in service.method:
                streams = "stream " * method.client_streaming, "stream " * method.server_streaming
                request, answer = method.input_type, method.output_type
                yield f"{prefix}{service.name}/{method.name}: {streams[0]}{request} -> {streams[1]}{answer}"
        for message in file.message_type:
            yield from _fields(f"{prefix}{message.name}", message)
        for enum in file.enum_type:
            yield from (f"{prefix}{enum.name}.{value.name} = {value.number}" for value in enum.value)


def _fields(name: str, message: DescriptorProto) -> Iterator[str]:
    for field in message.field:
        yield f"{name}.{field.name} = {field.number}, type {field.type}, label {field.label} {field.type_name}".rstrip()
    for nested in message.nested_type:
        yield from _fields(f"{name}.{nested.name}", nested)
    for enum in message.enum_type:
        yield from (f"{name}.{enum.name}.{value.name} = {value.number}" for value in enum.value)


def metrics() -> Iterator[str]:
    """Yields the names of metrics: the first argument of each `Family` in the source."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "mlflow_grpc").rglob("*.py"))
    for text in (text for text in texts if "Family(" in text):
        for node in ast.walk(ast.parse(text)):
            match node:
                case ast.Call(func=ast.Name(id="Family"), args=[ast.Constant(value=str(name)), *_]):
                    yield name


def client() -> Iterator[str]:
    """Yields the names that the client exports, and its errors with their codes."""
    yield from mlflow_grpc_client.__all__
    yield from (f"{error.__name__} = {code.name}" for code, error in errors._BY_CODE.items())  # noqa: SLF001


def public_interfaces() -> dict[str, list[str]]:
    """Returns the public names by the interface to which they belong."""
    interfaces = (flags, environment_names, wire, metrics, client)
    return {names.__name__: sorted(set(names())) for names in interfaces}


if __name__ == "__main__":
    TARGET.write_text(json.dumps(public_interfaces(), indent=1) + "\n", encoding="utf-8")
