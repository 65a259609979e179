"""Service grpc.health.v1.Health: NOT_SERVING until the models are loaded and while the server drains.

Source: the gRPC health checking protocol, https://github.com/grpc/grpc/blob/master/doc/health-checking.md.

Rule of this module: a status changes at once, and never waits for a watcher. The servicer of grpcio-health-checking
writes to its watchers while it holds the lock that a change needs, so a watcher that does not read would stop all
changes.
"""

import asyncio
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from mlflow_grpc import protos
from mlflow_grpc.engine.catalog import Entry
from mlflow_grpc.errors import UnknownService
from mlflow_grpc.services.dispatch import RpcDispatcher
from mlflow_grpc.services.grpc_call import GrpcCall

if TYPE_CHECKING:
    from mlflow_grpc.services.dispatch import Handlers

NAME: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

protos.adopt(health_pb2.DESCRIPTOR)
_Response = health_pb2.HealthCheckResponse
_messages: ModuleType = health_pb2  # Its type stubs are older, and do not have HealthListResponse.
SERVING: int = _Response.SERVING
NOT_SERVING: int = _Response.NOT_SERVING
SERVICE_UNKNOWN: int = _Response.SERVICE_UNKNOWN


class ModelAccess(Protocol):
    """Who may see the health of which models."""

    def check(self, name: str, call: GrpcCall) -> None:
        """Raises Unauthenticated or PermissionDenied if a caller may not see the health of the models of a name."""

    def visible(self, call: GrpcCall) -> set[str]:
        """Returns the names of the models that a caller may see."""


class HealthServicer:
    """Health of the server (the empty name), of each service and of each model, by their names."""

    def __init__(self, services: tuple[str, ...], access: ModelAccess | None = None) -> None:
        """Starts with the services NOT_SERVING.

        Args:
            services: Names of the services.
            access: Who may see the health of which models; None if everyone may.

        """
        self._access = access
        self.services = ("", *services)
        """Names of the server as a whole and of its services."""
        self._statuses: dict[str, int] = dict.fromkeys(self.services, NOT_SERVING)
        self._watchers: dict[str, set[asyncio.Event]] = {}  # One event for each watcher, by the name that it watches.

    async def Check(self, request: health_pb2.HealthCheckRequest, call: GrpcCall) -> health_pb2.HealthCheckResponse:
        """Returns the status of one service; NOT_FOUND if there is no such service.

        Raises:
            UnknownService: There is no such service or model.
            Unauthenticated: It may be a model, and the rules show models only to callers that are recognized.
            PermissionDenied: The caller may not see the model.

        """
        self._check_access(request.service, call)
        status = self._statuses.get(request.service)
        if status is None:
            raise UnknownService(
                "There is no service and no model of this name here. The RPC List of grpc.health.v1.Health lists the "
                "names."
            )
        return _Response(status=status)

    async def List(self, request: Message, call: GrpcCall) -> Message:
        """Returns all statuses, or those of the models that the caller may see and of the services."""
        names = set(self._statuses)
        if self._access is not None:
            names = {*self.services, *self._access.visible(call)}
        statuses = {name: _Response(status=status) for name, status in self._statuses.items() if name in names}
        response: Message = _messages.HealthListResponse(statuses=statuses)
        return response

    async def Watch(self, request: health_pb2.HealthCheckRequest, call: GrpcCall) -> None:
        """Writes the status of one service now and whenever it changes; SERVICE_UNKNOWN while there is no such service.

        A watcher that reads slowly gets the latest status and misses those before, as the protocol allows. Raises the
        errors of `Check`, except for UnknownService.
        """
        self._check_access(request.service, call)
        name, changed = request.service, asyncio.Event()
        self._watchers.setdefault(name, set()).add(changed)
        last = None
        try:
            while True:
                changed.clear()
                status = self._statuses.get(name, SERVICE_UNKNOWN)
                if status != last:
                    self._check_access(name, call)  # There may have been no such model before.
                    await call.write(_Response(status=status))
                    last = status
                await changed.wait()
        finally:
            self._watchers[name].discard(changed)
            if not self._watchers[name]:
                del self._watchers[name]

    def _check_access(self, name: str, call: GrpcCall) -> None:
        if self._access is not None and name not in self.services:
            self._access.check(name, call)

    @property
    def is_serving(self) -> bool:
        """True if the server as a whole is SERVING."""
        return self._statuses[""] == SERVING

    def serves(self, name: str) -> bool:
        """Returns True if a service or model of this name is SERVING."""
        return self._statuses.get(name) == SERVING

    def set_serving(self, serving: bool, *names: str) -> None:
        """Sets the status of services and models, and adds names that are new."""
        status = SERVING if serving else NOT_SERVING
        for name in names:
            self._statuses[name] = status
            for changed in self._watchers.get(name, ()):
                changed.set()

    def remove(self, *names: str) -> None:
        """Removes names that no model has any more; their watchers get SERVICE_UNKNOWN."""
        for name in names:
            self._statuses.pop(name, None)
            for changed in self._watchers.get(name, ()):
                changed.set()


def health_names(entry: Entry) -> tuple[str, ...]:
    """Returns the names of a model in health checks: its name, and its label if it has a version."""
    return tuple(dict.fromkeys((entry.name, entry.label))) if entry.name else ()


def handlers(dispatcher: RpcDispatcher, servicer: HealthServicer) -> "Handlers":
    """Makes the handlers of service grpc.health.v1.Health."""
    return dispatcher.service_handlers(
        protos.service(NAME),
        {"Check": servicer.Check, "List": servicer.List, "Watch": servicer.Watch},
    )
