"""The wire contract as descriptors, in a pool of their own.

Rule of this package: no message of ours is registered in protobuf's default pool, since a hosted
model may bring its own `mlflow.proto`, `Input` or `Output` (`scripts/generate_protos.py` says more).
"""

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, message_factory, struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

POOL = DescriptorPool()
"""Every service whose messages are the same on every server, for dispatch and for reflection."""

_FILES: list[descriptor_pb2.FileDescriptorProto] = []


def _add(file: descriptor_pb2.FileDescriptorProto) -> None:
    if not any(registered.name == file.name for registered in _FILES):
        _FILES.append(file)
        POOL.Add(file)


def _load(name: str) -> None:
    data = resources.files(__package__).joinpath(name).read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        _add(file)


def files() -> tuple[descriptor_pb2.FileDescriptorProto, ...]:
    """The files of POOL, which itself keeps no comments; those of this server's own services have theirs."""
    return tuple(_FILES)


def pool_with(file: descriptor_pb2.FileDescriptorProto) -> DescriptorPool:
    """A new pool of all that is in POOL, and one more file, which may import google.protobuf's Timestamp and Value."""
    for module in (timestamp_pb2, struct_pb2):
        adopt(module.DESCRIPTOR)
    pool = DescriptorPool()
    for registered in (*_FILES, file):
        pool.Add(registered)
    return pool


def refusal_of(file: descriptor_pb2.FileDescriptorProto) -> str:
    """What protobuf has against a file; empty if it takes it."""
    try:
        pool_with(file)
    except TypeError as error:
        return str(error)
    return ""


def adopt(file: Any) -> None:
    """Copies a file that a library has registered in the default pool, and what it imports, into POOL."""
    for dependency in file.dependencies:
        adopt(dependency)
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    _add(proto)


def service(full_name: str) -> ServiceDescriptor:
    """The descriptor of a service in POOL, such as `MLflow` or `grpc.health.v1.Health`."""
    return POOL.FindServiceByName(full_name)


def message_class(descriptor: Descriptor) -> type[Message]:
    """The Python class of a message type."""
    return message_factory.GetMessageClass(descriptor)


def set_of(file: descriptor_pb2.FileDescriptorProto) -> bytes:
    """A file and what it imports of google.protobuf as a serialised FileDescriptorSet."""
    needed = descriptor_pb2.FileDescriptorSet()
    for module in (timestamp_pb2, struct_pb2):
        if module.DESCRIPTOR.name in file.dependency:
            module.DESCRIPTOR.CopyToProto(needed.file.add())
    needed.file.append(file)
    return needed.SerializeToString(deterministic=True)


def message_named(full_name: str) -> Any:
    """The Python class of a message type in POOL, with fields that no type checker sees."""
    return message_class(POOL.FindMessageTypeByName(full_name))


_load("mlflow.binpb")
Input = message_named("Input")
Output = message_named("Output")
