"""Descriptors of a service, fetched by server reflection.

Rule of this module: it makes no call; it yields calls and is sent their results. The messages are those of
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
"""Builds a call from a method, a request and a reader of the response.

The method takes a stream, and a single message is sent. On the wire that equals a unary call.
"""

Files = dict[str, descriptor_pb2.FileDescriptorProto]
"""Files by name."""


def descriptors(symbol: str, call: MakeCall) -> Generator[Call, Any, DescriptorPool]:
    """Fetches the file that defines a symbol, and its imports.

    Args:
        symbol: The full name.
        call: Builds a call.

    Yields:
        Calls to make; send the result of each, or throw its PredictError.

    Returns:
        A new pool with these files.

    Raises:
        PredictError: The server has no reflection or no such symbol, or sends invalid descriptors.

    """
    fetched = yield from files(symbol, call, invalid(f"it knows no {symbol}"))
    return pool_of(fetched)


def files(symbol: str, call: MakeCall, unknown: PredictError) -> Generator[Call, Any, Files]:
    """Fetches the files of `descriptors` without a pool.

    Raises:
        PredictError: `unknown`, if the server has no such symbol; else as in `descriptors`.

    """
    fetched: Files = {}
    method, request = METHODS[0], {"file_containing_symbol": symbol}
    while request:
        try:
            received = yield call(method, _Request(**request).SerializeToString(), _files)
        except PredictError as error:
            if error.code is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            if method == METHODS[-1]:
                message = "The server has no reflection, which typed calls need. Use client.predict instead."
                raise failure(error.code, message) from None
            method = METHODS[-1]
            continue
        fetched.update({file.name: file for file in received})
        missing = sorted({name for file in fetched.values() for name in file.dependency} - fetched.keys())
        if not received and "file_containing_symbol" in request:
            raise unknown
        if not received or request.get("file_by_filename") in missing:
            raise invalid(f"the file {request} is not there")
        request = {"file_by_filename": missing[0]} if missing else {}
    return fetched


def _files(response_bytes: bytes) -> list[descriptor_pb2.FileDescriptorProto]:
    response = _Response.FromString(response_bytes)
    if response.HasField("error_response"):
        if response.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]:
            return []
        raise invalid(response.error_response.error_message)
    serialized = response.file_descriptor_response.file_descriptor_proto
    return [descriptor_pb2.FileDescriptorProto.FromString(data) for data in serialized]


def pool_of(fetched: Files) -> DescriptorPool:
    """A pool of files.

    Raises:
        PredictError: The files do not fit together.

    """
    pool, remaining = DescriptorPool(), dict(fetched)
    while remaining:
        ready = [file for file in remaining.values() if not remaining.keys() & set(file.dependency)]
        if not ready:
            raise invalid("the files need each other")
        for file in ready:
            try:
                pool.Add(file)
            except TypeError as error:
                raise invalid(str(error)) from None
            del remaining[file.name]
    return pool


def invalid(problem: Any) -> PredictError:
    """The error for descriptors that mlflow-grpc never sends."""
    return failure(grpc.StatusCode.INTERNAL, f"The server's reflection does not describe its models: {problem}.")
