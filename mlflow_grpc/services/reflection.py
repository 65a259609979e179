"""Server reflection, so that grpcurl, buf curl and their like can list, describe and call the services.

grpcio-reflection speaks v1alpha; v1 is the same protocol under another name, and what newer clients ask
for first. Both are answered.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2

from mlflow_grpc import protos
from mlflow_grpc.services.calls import Call, Calls

if TYPE_CHECKING:
    from mlflow_grpc.services.calls import Handlers

NAME = reflection.SERVICE_NAME
NAME_V1 = "grpc.reflection.v1.ServerReflection"

protos.adopt(reflection_pb2.DESCRIPTOR)


class ReflectionServicer:
    """Answers from a descriptor pool of the server's own."""

    def __init__(self) -> None:
        self._library: Any = None

    def offer(self, services: tuple[str, ...], pool: DescriptorPool) -> None:
        """Says which services there are, besides itself, and where their messages stand."""
        self._library = reflection.aio.ReflectionServicer((*services, NAME), pool=pool)

    async def ServerReflectionInfo(self, requests: AsyncIterator[Any], call: Call) -> None:
        """Answers each request of the stream in turn."""
        async for answer in self._library.ServerReflectionInfo(requests, call):
            await call.write(answer)


def handlers(calls: Calls, servicer: ReflectionServicer) -> "tuple[Handlers, Handlers]":
    """The handlers of both names of the reflection service."""
    # The library takes and gives messages of its own classes, not of those in our pool.
    descriptor = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
    return calls.handlers(descriptor, servicer), calls.handlers(descriptor, servicer, path=NAME_V1)
