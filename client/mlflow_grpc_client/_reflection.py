"""The descriptors of a service, asked of a server by reflection.

Rule of this module: it makes no call. It says what to ask and puts answers together; the messages are those of
grpc.reflection.v1alpha, which v1 has under another name.
"""

from collections.abc import Callable, Generator
from typing import Any

import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool

from mlflow_grpc_client import _wire
from mlflow_grpc_client._calls import Call
from mlflow_grpc_client.errors import PredictError, failure

METHODS = tuple(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha"))

_Request = _wire.message_class("grpc.reflection.v1alpha.ServerReflectionRequest")
_Response = _wire.message_class("grpc.reflection.v1alpha.ServerReflectionResponse")


MakeCall = Callable[[str, bytes, Callable[[bytes], Any]], Call]
"""Makes a call of a method, a request and how to read the answer. The method takes a stream, of which one message is
sent: on the wire that is the same as a call of one request and one answer."""


def descriptors(symbol: str, call: MakeCall) -> Generator[Call, Any, DescriptorPool]:
    """Asks for the file that defines a symbol and those that it needs.

    Args:
        symbol: Its full name.
        call: Makes a call.

    Yields:
        Each call; send it what came, or throw the PredictError that came instead.

    Returns:
        A pool of their own with these files.

    Raises:
        PredictError: The server has no reflection, knows no such symbol, or what it says makes no sense.

    """
    found = yield from files(symbol, call, senseless(f"it knows no {symbol}"))
    return pool_of(found)


def files(
    symbol: str, call: MakeCall, unknown: PredictError
) -> Generator[Call, Any, dict[str, descriptor_pb2.FileDescriptorProto]]:
    """The same, but gives the files by their names.

    Raises:
        PredictError: `unknown`, if the server knows no such symbol; others as of `descriptors`.

    """
    method, found = METHODS[0], {}
    request = {"file_containing_symbol": symbol}
    while request:
        try:
            answered = yield call(method, _Request(**request).SerializeToString(), _files)
        except PredictError as error:
            if error.code is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            if method == METHODS[-1]:
                raise failure(
                    error.code,
                    "The server offers no reflection, by which this client learns the types of a model. "
                    "client.predict works without.",
                ) from None
            method = METHODS[-1]
            continue
        found.update({file.name: file for file in answered})
        missing = sorted({needed for file in found.values() for needed in file.dependency} - found.keys())
        if not answered and "file_containing_symbol" in request:
            raise unknown
        if not answered or request.get("file_by_filename") in missing:
            raise senseless(f"the file {request} is not there")
        request = {"file_by_filename": missing[0]} if missing else {}
    return found


def _files(answer: bytes) -> list[descriptor_pb2.FileDescriptorProto]:
    response = _Response.FromString(answer)
    if response.HasField("error_response"):
        if response.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]:
            return []
        raise senseless(response.error_response.error_message)
    parts = response.file_descriptor_response.file_descriptor_proto
    return [descriptor_pb2.FileDescriptorProto.FromString(part) for part in parts]


def pool_of(found: dict[str, descriptor_pb2.FileDescriptorProto]) -> DescriptorPool:
    """A pool of files.

    Raises:
        PredictError: They do not fit together.

    """
    pool, waiting = DescriptorPool(), dict(found)
    while waiting:
        ready = [file for file in waiting.values() if not waiting.keys() & set(file.dependency)]
        if not ready:
            raise senseless("the files need each other")
        for file in ready:
            try:
                pool.Add(file)
            except TypeError as error:
                raise senseless(str(error)) from None
            del waiting[file.name]
    return pool


def senseless(what: Any) -> PredictError:
    """The error for what no server of ours says."""
    return failure(grpc.StatusCode.INTERNAL, f"The server's reflection does not describe its models: {what}.")
