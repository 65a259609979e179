"""The .proto file of a server's typed RPCs, for clients that compile it.

Rule of this module: it makes no call; it yields calls and is sent their results.
"""

from collections.abc import Generator
from dataclasses import dataclass

import grpc
from _mlflow_grpc_protocol import proto_text
from google.protobuf import descriptor_pb2

from mlflow_grpc_client import _reflection
from mlflow_grpc_client._calls import Call
from mlflow_grpc_client._typed.descriptors import SERVICE
from mlflow_grpc_client.errors import failure


@dataclass(frozen=True)
class ProtoFile:
    """The typed RPCs of a server, as `mlflow-grpc proto` writes them from the same models."""

    name: str
    """The file name, model_service.proto, which compiled stubs in Python and Node depend on."""
    text: str
    """The text of the .proto file, with comments."""
    descriptor_set: bytes
    """The file and its imports as a serialised google.protobuf.FileDescriptorSet."""


def fetch(call: _reflection.MakeCall) -> Generator[Call, None, ProtoFile]:
    """Fetches the file from a server.

    Yields:
        Calls to make; send the result of each, or throw its PredictError.

    Raises:
        PredictError: The server has no typed RPCs or no reflection, or sends invalid descriptors.

    """
    unknown = failure(
        grpc.StatusCode.UNIMPLEMENTED,
        "The server has no typed RPCs, or not yet: none of its models is ready and has a signature or schemas that "
        "messages can be made of.",
    )
    files = yield from _reflection.files(SERVICE, call, unknown)
    try:
        file = files[_reflection.pool_of(files).FindFileContainingSymbol(SERVICE).name]
        text = proto_text.text_of(file)
    except (KeyError, ValueError) as error:
        raise _reflection.invalid(error.args[0]) from None
    imports = [files[name] for name in file.dependency]
    data = descriptor_pb2.FileDescriptorSet(file=[*imports, file]).SerializeToString(deterministic=True)
    return ProtoFile(file.name, text, data)
