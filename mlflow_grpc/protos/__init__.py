"""Descriptors of the wire contract, in a pool of their own.

Rule of this package: no message of the server is registered in protobuf's default pool, because a hosted model may
bring its own `mlflow.proto`, `Input` or `Output` (see `scripts/generate_protos.py`).
"""

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, message_factory, struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

POOL = DescriptorPool()
"""Pool of the services whose messages are the same on every server, for dispatch and reflection."""

_FILES: list[descriptor_pb2.FileDescriptorProto] = []


def _add(file: descriptor_pb2.FileDescriptorProto) -> None:
    if not any(registered.name == file.name for registered in _FILES):
        _FILES.append(file)
        POOL.Add(file)


def load(name: str) -> None:
    """Adds the files of a descriptor set of this package to POOL.

    Args:
        name: File name of the set, such as `mlflow.binpb`.
    """
    data = resources.files(__package__).joinpath(name).read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        _add(file)


def files() -> tuple[descriptor_pb2.FileDescriptorProto, ...]:
    """Returns the files of POOL with their comments, which the pool drops; only this server's own services have any."""
    return tuple(_FILES)


def pool_with(file: descriptor_pb2.FileDescriptorProto) -> DescriptorPool:
    """Returns a new pool with all files of POOL and one more, which may import protobuf's Timestamp and Value."""
    for module in (timestamp_pb2, struct_pb2):
        adopt(module.DESCRIPTOR)
    pool = DescriptorPool()
    for registered in (*_FILES, file):
        pool.Add(registered)
    return pool


def refusal_of(file: descriptor_pb2.FileDescriptorProto) -> str:
    """Returns protobuf's objection to a file; empty if there is none."""
    try:
        pool_with(file)
    except TypeError as error:
        return str(error)
    return ""


def adopt(file: Any) -> None:
    """Copies a file and its imports from the default pool, where a library registered them, into POOL."""
    for dependency in file.dependencies:
        adopt(dependency)
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    _add(proto)


def service(full_name: str) -> ServiceDescriptor:
    """Returns the descriptor of a service in POOL, such as `MLflow` or `grpc.health.v1.Health`."""
    return POOL.FindServiceByName(full_name)


def message_class(descriptor: Descriptor) -> type[Message]:
    """Returns the Python class of a message type."""
    return message_factory.GetMessageClass(descriptor)


def message_named(full_name: str) -> Any:
    """Returns the Python class of a message type in POOL; type checkers do not see its fields."""
    return message_class(POOL.FindMessageTypeByName(full_name))


adopt(timestamp_pb2.DESCRIPTOR)  # arrow/flight/flight.proto imports it.
load("mlflow.binpb")
Input = message_named("Input")
Output = message_named("Output")
