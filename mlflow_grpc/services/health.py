"""Service grpc.health.v1.Health: NOT_SERVING until the models are loaded and while the server drains.

Source: the gRPC health checking protocol. The statuses are kept by grpcio-health-checking.
"""

from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2

from mlflow_grpc import protos
from mlflow_grpc.services.dispatch import RpcDispatcher
from mlflow_grpc.services.grpc_call import GrpcCall

if TYPE_CHECKING:
    from mlflow_grpc.services.dispatch import Handlers

NAME = health.SERVICE_NAME

protos.adopt(health_pb2.DESCRIPTOR)
_messages: Any = health_pb2  # Newer than its type stubs.


class HealthServicer:
    """Health of the server (the empty name), of each service and of each model, by their names."""

    def __init__(self, services: tuple[str, ...]) -> None:
        # A GrpcCall is passed to it in place of a gRPC context.
        self._library: Any = health.aio.HealthServicer()
        self.services = ("", *services)
        """Names of the server as a whole and of its services."""
        self._names = list(self.services)
        self._is_serving = False

    async def Check(self, request: Any, call: GrpcCall) -> Message:
        """Returns the status of one service; NOT_FOUND if there is no such service."""
        answer: Message = await self._library.Check(request, call)
        return answer

    async def List(self, request: Any, call: GrpcCall) -> Message:
        """Returns the statuses of all services."""
        answer: Any = _messages.HealthListResponse()
        for name in self._names:
            status = await self._library.Check(_messages.HealthCheckRequest(service=name), call)
            answer.statuses[name].CopyFrom(status)
        response: Message = answer
        return response

    async def Watch(self, request: Any, call: GrpcCall) -> None:
        """Writes the status of one service now and whenever it changes."""
        await self._library.Watch(request, call)

    @property
    def is_serving(self) -> bool:
        """True if the server as a whole is SERVING."""
        return self._is_serving

    async def set_serving(self, serving: bool, *names: str) -> None:
        """Sets the status of services and models, and adds names that are new."""
        serving_status = health_pb2.HealthCheckResponse
        if "" in names:
            self._is_serving = serving
        for name in names:
            if name not in self._names:
                self._names.append(name)
            await self._library.set(name, serving_status.SERVING if serving else serving_status.NOT_SERVING)


def handlers(dispatcher: RpcDispatcher, servicer: HealthServicer) -> "Handlers":
    """Makes the handlers of service grpc.health.v1.Health."""
    return dispatcher.service_handlers(
        health_pb2.DESCRIPTOR.services_by_name["Health"],
        {"Check": servicer.Check, "List": servicer.List, "Watch": servicer.Watch},
    )
