"""Server reflection, so that grpcurl, buf curl and their like can list, describe and call the services.

v1alpha and v1 are the same protocol under two names, and newer clients try v1 first. Both are served, with the messages
of grpcio-reflection. Its servicer is not used, because it reads files from a descriptor pool, which keeps no comments.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2

from mlflow_grpc import protos
from mlflow_grpc.contract.fields import PACKAGE
from mlflow_grpc.contract.messages import SERVICE
from mlflow_grpc.daemon_threads import in_daemon_thread
from mlflow_grpc.services.dispatch import RpcDispatcher
from mlflow_grpc.services.grpc_call import GrpcCall

if TYPE_CHECKING:
    from mlflow_grpc.services.dispatch import Handlers
    from mlflow_grpc.services.typed import TypedService

NAME = "grpc.reflection.v1alpha.ServerReflection"
NAME_V1 = "grpc.reflection.v1.ServerReflection"

NAME_OF_TYPED = f"{PACKAGE}.{SERVICE}"

protos.adopt(reflection_pb2.DESCRIPTOR)


@dataclass(frozen=True)
class _Offer:
    """Services and files that reflection shows."""

    services: tuple[str, ...]
    pool: DescriptorPool
    typed_file: Callable[[], FileDescriptorProto | None]
    files: dict[str, FileDescriptorProto]
    """Files of `protos`; the file of the typed messages is added at the first request for it."""

    async def file(self, name: str) -> FileDescriptorProto:
        """Returns a file of the pool.

        Raises:
            KeyError: The pool has no such file.

        """
        self.pool.FindFileByName(name)
        if name not in self.files:
            # Made at the first request, and outside of the event loop: the comments of a large file take a second.
            typed_file = await in_daemon_thread(self.typed_file, "describe-messages")
            if typed_file is not None:
                self.files[typed_file.name] = typed_file
        return self.files[name]


class ReflectionServicer:
    """Serves the files of a descriptor pool of the server's own."""

    def __init__(self, typed: "TypedService") -> None:
        """Shows nothing yet.

        Args:
            typed: Has the typed RPCs that each caller may see.

        """
        self._typed = typed
        self._offer: _Offer
        self._parts: dict[frozenset[str], _Offer] = {}  # Offers for some callers, by the typed RPCs that they have.

    def offer(
        self, services: tuple[str, ...], pool: DescriptorPool, typed_file: Callable[[], FileDescriptorProto | None]
    ) -> None:
        """Replaces the services and files to show.

        Args:
            services: Names of the services to list, besides reflection itself.
            pool: Their messages.
            typed_file: Returns the file of the typed messages; None if there are none.

        """
        self._offer = _Offer(
            tuple(sorted((*services, NAME))), pool, typed_file, {file.name: file for file in protos.files()}
        )
        self._parts = {}

    async def _offer_to(self, call: GrpcCall) -> _Offer:
        """Returns what the caller of a call may see."""
        permit, offer, parts = call.permit, self._offer, self._parts
        if permit is None or permit.rules is None:
            return offer
        rpcs = self._typed.seen_by(permit)
        if rpcs not in parts:
            # The number of parts is limited by the rules. Another offer begins with none.
            typed = await in_daemon_thread(lambda: self._typed.part(rpcs), "describe-messages")
            if typed is None:
                parts[rpcs] = offer
            else:
                services = offer.services if rpcs else tuple(name for name in offer.services if name != NAME_OF_TYPED)
                file = typed.file
                parts[rpcs] = _Offer(services, typed.pool, lambda: file, {file.name: file for file in protos.files()})
        return parts[rpcs]

    async def ServerReflectionInfo(
        self, requests: AsyncIterator[reflection_pb2.ServerReflectionRequest], call: GrpcCall
    ) -> None:
        """Answers each request of the stream, in order."""
        async for request in requests:
            answer = reflection_pb2.ServerReflectionResponse(original_request=request)
            try:
                await _answer(await self._offer_to(call), request, answer)
            except KeyError:  # The pool does not have it.
                _refuse(answer, grpc.StatusCode.NOT_FOUND)
            await call.write(answer)


async def _answer(
    offer: _Offer, request: reflection_pb2.ServerReflectionRequest, answer: reflection_pb2.ServerReflectionResponse
) -> None:
    pool = offer.pool
    match request.WhichOneof("message_request"):
        case "file_by_filename":
            await _put(offer, answer, request.file_by_filename)
        case "file_containing_symbol":
            await _put(offer, answer, pool.FindFileContainingSymbol(request.file_containing_symbol).name)
        case "file_containing_extension":
            requested = request.file_containing_extension
            extension = pool.FindExtensionByNumber(
                pool.FindMessageTypeByName(requested.containing_type), requested.extension_number
            )
            await _put(offer, answer, pool.FindFileContainingSymbol(extension.full_name).name)
        case "all_extension_numbers_of_type":
            extended = pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
            response = answer.all_extension_numbers_response
            response.base_type_name = extended.full_name
            response.extension_number.extend(sorted(extension.number for extension in pool.FindAllExtensions(extended)))
        case "list_services":
            for name in offer.services:
                answer.list_services_response.service.add(name=name)
        case _:
            _refuse(answer, grpc.StatusCode.INVALID_ARGUMENT)


async def _put(offer: _Offer, answer: reflection_pb2.ServerReflectionResponse, name: str) -> None:
    """Answers with a file and all files that it imports."""
    files: dict[str, FileDescriptorProto] = {}
    pending = [name]
    while pending:
        name = pending.pop()
        if name not in files:
            files[name] = await offer.file(name)
            pending += reversed(files[name].dependency)
    serialized = answer.file_descriptor_response.file_descriptor_proto
    serialized.extend(file.SerializeToString() for file in files.values())


def _refuse(answer: reflection_pb2.ServerReflectionResponse, code: grpc.StatusCode) -> None:
    number, description = code.value
    answer.error_response.error_code = number
    answer.error_response.error_message = description


def handlers(dispatcher: RpcDispatcher, servicer: ReflectionServicer) -> "tuple[Handlers, Handlers]":
    """Makes the handlers of both names of the reflection service."""
    # Its responses are messages of the library's own classes, not of those in our pool.
    descriptor = cast("ServiceDescriptor", reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"])
    methods = {"ServerReflectionInfo": servicer.ServerReflectionInfo}
    return (
        dispatcher.service_handlers(descriptor, methods),
        dispatcher.service_handlers(descriptor, methods, path=NAME_V1),
    )
