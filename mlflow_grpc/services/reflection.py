"""Server reflection, so that grpcurl, buf curl and their like can list, describe and call the services.

v1alpha and v1 are the same protocol under two names, and newer clients ask for the latter first. Both are answered,
with grpcio-reflection's messages. Its servicer is not used: it takes files out of a descriptor pool, which keeps no
comments.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2

from mlflow_grpc import protos
from mlflow_grpc.process import in_daemon_thread
from mlflow_grpc.services.calls import Call, Calls

if TYPE_CHECKING:
    from mlflow_grpc.services.calls import Handlers

NAME = "grpc.reflection.v1alpha.ServerReflection"
NAME_V1 = "grpc.reflection.v1.ServerReflection"

protos.adopt(reflection_pb2.DESCRIPTOR)


@dataclass(frozen=True)
class _Offer:
    """What a server has to show."""

    services: tuple[str, ...]
    pool: DescriptorPool
    typed_file: Callable[[], FileDescriptorProto | None]
    files: dict[str, FileDescriptorProto]
    """Those of `protos`, and once somebody has asked for it the one of the typed messages."""

    async def file(self, name: str) -> FileDescriptorProto:
        """A file of the pool.

        Raises:
            KeyError: The pool has no such file.

        """
        self.pool.FindFileByName(name)
        if name not in self.files:
            # Not made before it is wanted, and not in the event loop: its comments take a second if it is large.
            made = await in_daemon_thread(self.typed_file)
            if made is not None:
                self.files[made.name] = made
        return self.files[name]


class ReflectionServicer:
    """Answers from a descriptor pool of the server's own."""

    def __init__(self) -> None:
        self._offer: _Offer

    def offer(
        self, services: tuple[str, ...], pool: DescriptorPool, typed_file: Callable[[], FileDescriptorProto | None]
    ) -> None:
        """Says what there is.

        Args:
            services: Those that are listed, besides reflection itself.
            pool: Their messages.
            typed_file: Gives the file that the pool has been made from besides those of `protos`, if there is one.

        """
        self._offer = _Offer(
            tuple(sorted((*services, NAME))), pool, typed_file, {file.name: file for file in protos.files()}
        )

    async def ServerReflectionInfo(self, requests: AsyncIterator[Any], call: Call) -> None:
        """Answers each request of the stream in turn."""
        async for request in requests:
            answer = reflection_pb2.ServerReflectionResponse(original_request=request)
            try:
                await _answer(self._offer, request, answer)
            except KeyError:  # The pool has no such thing.
                _refuse(answer, grpc.StatusCode.NOT_FOUND)
            await call.write(answer)


async def _answer(offer: _Offer, request: Any, answer: Any) -> None:
    pool = offer.pool
    match request.WhichOneof("message_request"):
        case "file_by_filename":
            await _put(offer, answer, request.file_by_filename)
        case "file_containing_symbol":
            await _put(offer, answer, pool.FindFileContainingSymbol(request.file_containing_symbol).name)
        case "file_containing_extension":
            asked = request.file_containing_extension
            extension = pool.FindExtensionByNumber(
                pool.FindMessageTypeByName(asked.containing_type), asked.extension_number
            )
            await _put(offer, answer, pool.FindFileContainingSymbol(extension.full_name).name)
        case "all_extension_numbers_of_type":
            extended = pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
            told = answer.all_extension_numbers_response
            told.base_type_name = extended.full_name
            told.extension_number.extend(sorted(each.number for each in pool.FindAllExtensions(extended)))
        case "list_services":
            for name in offer.services:
                answer.list_services_response.service.add(name=name)
        case _:
            _refuse(answer, grpc.StatusCode.INVALID_ARGUMENT)


async def _put(offer: _Offer, answer: Any, name: str) -> None:
    """Answers with a file and all that it imports."""
    found: dict[str, FileDescriptorProto] = {}
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = await offer.file(name)
            waiting += reversed(found[name].dependency)
    parts = answer.file_descriptor_response.file_descriptor_proto
    parts.extend(file.SerializeToString() for file in found.values())


def _refuse(answer: Any, code: grpc.StatusCode) -> None:
    number, words = code.value
    answer.error_response.error_code = number
    answer.error_response.error_message = words


def handlers(calls: Calls, servicer: ReflectionServicer) -> "tuple[Handlers, Handlers]":
    """The handlers of both names of the reflection service."""
    # What is answered are messages of the library's own classes, not of those in our pool.
    descriptor = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
    return calls.handlers(descriptor, servicer), calls.handlers(descriptor, servicer, path=NAME_V1)
