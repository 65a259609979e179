"""Descriptor sets of the typed messages, for programs that have no .proto files.

A set has what a proxy needs to turn JSON into calls and statuses into JSON: the typed RPCs, the RPCs of mlflow.proto,
and the types of error details. Envoy answers with an empty body if it does not know the type of a detail.
"""

from collections.abc import Mapping

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

COMPANIONS = ("google/rpc/error_details.proto", "google/rpc/status.proto", "mlflow.proto")
"""Files that a set has besides the typed file and its imports."""


def set_of(name: str, files: Mapping[str, FileDescriptorProto]) -> bytes:
    """Returns a serialised FileDescriptorSet.

    Args:
        name: Name of the typed file.
        files: The typed file, COMPANIONS, and the imports of all, by name. Companions may be missing.

    Returns:
        The files in an order in which each file follows its imports.

    Raises:
        KeyError: The typed file or an import is missing.

    """
    ordered: dict[str, FileDescriptorProto] = {}

    def add(file: FileDescriptorProto) -> None:
        for imported in file.dependency:
            if imported not in ordered:
                add(files[imported])
        ordered[file.name] = file

    for companion in COMPANIONS:
        if companion in files:
            add(files[companion])
    add(files[name])
    return FileDescriptorSet(file=ordered.values()).SerializeToString(deterministic=True)
