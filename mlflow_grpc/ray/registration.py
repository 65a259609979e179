"""Registration of the RPCs with the gRPC servers of Ray Serve: those of its replicas and those of its proxies.

Ray Serve calls `add_to_server` with each of its gRPC servers. In a replica behind HAProxy, the server is the one that
clients reach, and the handlers of the models are registered with it directly: deadlines, statuses, streams and costs
are then those of the server on its own. Elsewhere, Ray Serve puts its wrapper into each handler, which hands messages
to the methods of a replica (`mlflow_grpc.ray.fallback`).

Rule of this module: it imports no MLflow, because proxies import it. That handlers can be registered directly is no
documented property of Ray Serve, so the version of Ray is pinned, and the wrapper remains.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from mlflow_grpc.ray.fallback import METHODS, TypedMethods, handler

if TYPE_CHECKING:
    from mlflow_grpc.host import Host


@dataclass
class Served:
    """The host of a replica's process."""

    host: "Host"
    loop: asyncio.AbstractEventLoop | None = None
    """Event loop of the gRPC server that has the handlers; None if there is no such server."""


_served: list[Served] = []  # A process has one replica at most.


def offer(host: "Host") -> Served:
    """Offers a host to the gRPC server that Ray Serve is about to start in this process."""
    _served[:] = [Served(host)]
    return _served[0]


def add_to_server(servicer: object, server: Any) -> None:
    """Registers the RPCs; `grpc_servicer_functions` of a configuration has `mlflow_grpc.ray.add_to_server`.

    Args:
        servicer: Not used.
        server: A server of Ray Serve, which is about to start in the current event loop.

    """
    if _served and isinstance(server, grpc.aio.Server):
        # Past Ray Serve's own method, which would put the wrapper into each handler.
        plain: Any = next(base for base in type(server).__mro__ if base.__module__.startswith("grpc."))
        plain.add_generic_rpc_handlers(server, _served[0].host.handlers)
        _served[0].loop = asyncio.get_running_loop()
        return
    for service, methods in METHODS.items():
        handlers = {name: handler(form) for name, form in methods.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_generic_rpc_handlers((TypedMethods(server),))
