"""The .proto file of a server's typed RPCs, for clients that compile it.

Rule of this module: it makes no call; what is to be asked is yielded, and the answers are sent to it.
"""

from collections.abc import Generator
from dataclasses import dataclass

import grpc
from google.protobuf import descriptor_pb2

from mlflow_grpc_client import _proto_text, _reflection
from mlflow_grpc_client._calls import Call
from mlflow_grpc_client._typed.contract import SERVICE
from mlflow_grpc_client.errors import failure


@dataclass(frozen=True)
class ProtoFile:
    """The typed RPCs of a server, as `mlflow-grpc proto` writes them from the same models."""

    name: str
    """Under which Python and Node know it once it is compiled: model_service.proto."""
    text: str
    """Of the .proto file, with comments."""
    descriptor_set: bytes
    """The same as a serialised google.protobuf.FileDescriptorSet, with what it imports."""


def ask(call: _reflection.MakeCall) -> Generator[Call, None, ProtoFile]:
    """Asks a server for its file.

    Yields:
        Each call; send it what came, or throw the PredictError that came instead.

    Raises:
        PredictError: The server has no typed RPCs or no reflection, or what it says makes no sense.

    """
    unknown = failure(
        grpc.StatusCode.UNIMPLEMENTED,
        "The server has no typed RPCs, or not yet: none of its models is ready and has a signature or schemas that "
        "messages can be made of.",
    )
    found = yield from _reflection.files(SERVICE, call, unknown)
    try:
        file = found[_reflection.pool_of(found).FindFileContainingSymbol(SERVICE).name]
        text = _proto_text.text_of(file)
    except (KeyError, ValueError) as error:
        raise _reflection.senseless(error.args[0]) from None
    needed = [found[each] for each in file.dependency]
    data = descriptor_pb2.FileDescriptorSet(file=[*needed, file]).SerializeToString(deterministic=True)
    return ProtoFile(file.name, text, data)
