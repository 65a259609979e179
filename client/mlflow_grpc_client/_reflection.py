"""The .proto file of a server's typed RPCs, by server reflection.

Rule of this module: it makes no call; it yields calls and is sent their results. A single request suffices for a file,
because the server answers it with the file and all of its imports. The messages are those of grpc.reflection.v1alpha,
which v1 has under another name.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

import grpc
from _mlflow_grpc_protocol import descriptor_sets, proto_text
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from mlflow_grpc_client import _wire
from mlflow_grpc_client._calls import Call
from mlflow_grpc_client.errors import PredictError, failure

SERVICE = "model_grpc_service.ModelgRPCService"
"""The service with the typed RPCs."""

MakeCall = Callable[[str, Any, Any], Call]
"""Builds a call, whose result is the response, from a method, a request and the class of the response."""

_Request = _wire.message_class("grpc.reflection.v1alpha.ServerReflectionRequest")
_Response = _wire.message_class("grpc.reflection.v1alpha.ServerReflectionResponse")


@dataclass(frozen=True)
class ProtoFile:
    """The typed RPCs of a server, as `mlflow-grpc proto` writes them from the same models."""

    name: str
    """The file name, model_service.proto, which compiled stubs in Python and Node depend on."""
    text: str
    """The text of the .proto file, with comments."""
    descriptor_set: bytes
    """A serialised google.protobuf.FileDescriptorSet of the file, mlflow.proto, and the types of error details."""


def proto_file(make_call: MakeCall) -> Generator[Call, Any, ProtoFile]:
    """Fetches the file: yields calls, and is sent the result of each, or thrown its PredictError.

    Raises PredictError if the server has no typed RPCs or no reflection, or sends invalid descriptors.
    """
    files = yield from _files(make_call)
    for companion in descriptor_sets.COMPANIONS:
        response = yield _call(make_call, _Request(file_by_filename=companion))
        files |= _files_in(response)
    try:
        name = _pool_of(files).FindFileContainingSymbol(SERVICE).name
        return ProtoFile(name, proto_text.text_of(files[name]), descriptor_sets.set_of(name, files))
    except (KeyError, ValueError) as error:
        raise _invalid(error) from None


def pool(make_call: MakeCall) -> Generator[Call, Any, DescriptorPool]:
    """Fetches the messages of the typed RPCs into a new pool. Yields and raises what `proto_file` does."""
    return _pool_of((yield from _files(make_call)))


def _files(make_call: MakeCall) -> Generator[Call, Any, dict[str, FileDescriptorProto]]:
    """The file and its imports by name."""
    try:
        response = yield _call(make_call, _Request(file_containing_symbol=SERVICE))
    except PredictError as error:
        if error.code is not grpc.StatusCode.UNIMPLEMENTED:
            raise
        message = "The server has no reflection, which typed calls need. Use client.predict instead."
        raise failure(error.code, message) from None
    if response.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]:
        raise failure(
            grpc.StatusCode.UNIMPLEMENTED,
            "The server has no typed RPCs, or not yet: none of its models is ready and has a signature or schemas that "
            "messages can be made of.",
        )
    if response.HasField("error_response"):
        raise _invalid(response.error_response.error_message)
    return _files_in(response)


def _call(make_call: MakeCall, request: Any) -> Call:
    return make_call(_wire.REFLECTION, request, _Response)


def _files_in(response: Any) -> dict[str, FileDescriptorProto]:
    """The files of a response by name; none if the server does not have the file."""
    files = map(FileDescriptorProto.FromString, response.file_descriptor_response.file_descriptor_proto)
    return {file.name: file for file in files}


def _pool_of(files: dict[str, FileDescriptorProto]) -> DescriptorPool:
    pool = DescriptorPool()
    try:
        # The imports of a file come first. An import that is missing is a KeyError, and a cycle a ValueError.
        for name in TopologicalSorter({name: file.dependency for name, file in files.items()}).static_order():
            pool.Add(files[name])
    except (KeyError, TypeError, ValueError) as error:
        raise _invalid(error) from None
    return pool


def _invalid(problem: Any) -> PredictError:
    """The error for descriptors that mlflow-grpc never sends."""
    return failure(grpc.StatusCode.INTERNAL, f"The server's reflection does not describe its models: {problem}.")
