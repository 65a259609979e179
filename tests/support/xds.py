"""A control plane that tells gRPC clients with an `xds:///` address which servers to call.

It has the aggregated discovery service of the xDS protocol, state of the world, with one listener, one route, one
cluster and its endpoints (https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol). `xds.proto` has the
messages.

Rule of this module: it knows no server of this project, only addresses.
"""

import contextlib
import json
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import grpc
from google.protobuf.json_format import ParseDict

SERVICE = "iris"
"""Name of the listener, which clients have in their address, and of the cluster."""

_ENVOY = "type.googleapis.com/envoy."
LISTENER = f"{_ENVOY}config.listener.v3.Listener"
CLUSTER = f"{_ENVOY}config.cluster.v3.Cluster"
ENDPOINTS = f"{_ENVOY}config.endpoint.v3.ClusterLoadAssignment"
_MANAGER = f"{_ENVOY}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = f"{_ENVOY}extensions.filters.http.router.v3.Router"

messages: Any = grpc.protos("tests/support/xds.proto")
"""The messages of `xds.proto`."""


class ControlPlane:
    """A running control plane on a free port of 127.0.0.1, and the endpoints that it announces."""

    def __init__(self, ports: Sequence[int]) -> None:
        """Starts it.

        Args:
            ports: Ports of the servers on 127.0.0.1.
        """
        self._lock = threading.Lock()
        self._subscribers: list[queue.Queue[Any]] = []
        self._ports = list(ports)
        self._version = 1
        self._server = grpc.server(ThreadPoolExecutor(max_workers=32))
        method = grpc.stream_stream_rpc_method_handler(
            self._resources,
            messages.DiscoveryRequest.FromString,
            messages.DiscoveryResponse.SerializeToString,
        )
        service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
        handlers = grpc.method_handlers_generic_handler(service, {"StreamAggregatedResources": method})
        self._server.add_generic_rpc_handlers((handlers,))
        self._port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def announce(self, ports: Sequence[int]) -> None:
        """Sends other endpoints to all clients."""
        with self._lock:
            self._ports, self._version = list(ports), self._version + 1
            for subscriber in self._subscribers:
                subscriber.put(ENDPOINTS)

    @property
    def address(self) -> str:
        """Address that clients find in the file of GRPC_XDS_BOOTSTRAP."""
        return f"127.0.0.1:{self._port}"

    def _resources(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        """Answers each subscription to a type of resources, and sends endpoints again when they have changed."""
        types: queue.Queue[str | None] = queue.Queue()
        context.add_callback(lambda: types.put(None))
        threading.Thread(target=_read, args=(requests, types), daemon=True).start()
        while (type_url := types.get()) is not None:
            with self._lock:  # A client that gets endpoints before it has asked for them reads no further.
                if type_url == ENDPOINTS and types not in self._subscribers:
                    self._subscribers.append(types)
            yield self._response(type_url)
        with self._lock:
            if types in self._subscribers:
                self._subscribers.remove(types)

    def _response(self, type_url: str) -> Any:
        with self._lock:
            resource, version = _resource(type_url, self._ports), str(self._version)
        packed = [_any(type_url, resource)]
        return messages.DiscoveryResponse(version_info=version, nonce=version, type_url=type_url, resources=packed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stop(None).wait(10)


def bootstrap(folder: Path, plane: ControlPlane) -> Path:
    """Writes the file that names a control plane to clients."""
    server = {
        "server_uri": plane.address,
        "channel_creds": [{"type": "insecure"}],
        "server_features": ["xds_v3"],
    }
    path = folder / "control-plane.json"
    path.write_text(json.dumps({"xds_servers": [server], "node": {"id": "client-1"}}))
    return path


def _read(requests: Iterator[Any], types: "queue.Queue[str | None]") -> None:
    """Passes on the types of resources that a client subscribes to, again if it has left and returned, until the call ends.

    Other requests confirm what was sent.
    """
    subscribed: dict[str, set[str]] = {}
    with contextlib.suppress(grpc.RpcError):
        for request in requests:
            if request.HasField("error_detail"):
                raise ValueError(request.error_detail.message)
            names = set(request.resource_names)
            if names - subscribed.get(request.type_url, set()):
                types.put(request.type_url)
            subscribed[request.type_url] = names


def _any(type_url: str, message: Any) -> Any:
    """Packs a message under the name that Envoy's own has."""
    return messages.google_dot_protobuf_dot_any__pb2.Any(type_url=type_url, value=message.SerializeToString())


def _resource(type_url: str, ports: Sequence[int]) -> Any:
    """Returns the resource of a type."""
    if type_url == LISTENER:
        route = {"match": {"prefix": ""}, "route": {"cluster": SERVICE}}
        host = {"name": SERVICE, "domains": ["*"], "routes": [route]}
        manager = messages.HttpConnectionManager()
        ParseDict({"route_config": {"name": SERVICE, "virtual_hosts": [host]}}, manager)
        manager.http_filters.add(name="router").typed_config.type_url = _ROUTER
        return messages.Listener(name=SERVICE, api_listener={"api_listener": _any(_MANAGER, manager)})
    if type_url == CLUSTER:
        discovery: dict[str, Any] = {"eds_config": {"ads": {}}, "service_name": SERVICE}
        return messages.Cluster(name=SERVICE, type="EDS", eds_cluster_config=discovery)
    assert type_url == ENDPOINTS, type_url
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}} for port in ports
    ]
    locality = {"locality": {"region": "here"}, "load_balancing_weight": 1, "lb_endpoints": endpoints}
    return ParseDict({"cluster_name": SERVICE, "endpoints": [locality]}, messages.ClusterLoadAssignment())
