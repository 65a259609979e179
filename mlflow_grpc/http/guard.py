"""The gate of the HTTP port: who may use a route.

Rule of this module: it passes headers and certificates to `mlflow_grpc.access`, which decides. Routes that call a model
are checked by `dispatch`, which also writes their log lines, except for requests with a wrong method.
"""

import ipaddress
from collections.abc import Callable, Collection
from typing import Any

from _mlflow_grpc_protocol.metadata import AUTHORIZATION_KEY
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from mlflow_grpc.access.gate import Gate
from mlflow_grpc.access.permits import Permit
from mlflow_grpc.calls.open_calls import OpenCalls
from mlflow_grpc.choices import Service
from mlflow_grpc.engine.catalog import Entry
from mlflow_grpc.errors import ServingError
from mlflow_grpc.http.errors import of_error
from mlflow_grpc.http.response import CLOSE

AUTHORIZATION = AUTHORIZATION_KEY.encode()

PERMIT_KEY = "mlflow_grpc.permit"
"""Key of the scope with the permit of the caller; it is not there if every caller may call."""

CERTIFICATE_KEY = "mlflow_grpc.certificate"
"""Key of the scope with the subject alternative names of the client's certificate."""

MODEL_READY = ("/v2/models/{name}/ready", "/v2/models/{name}/versions/{version}/ready")
"""Routes with the health of a model. It is open unless rules say who may see which model."""

_SERVICES = {
    "/ping": Service.HEALTH,
    "/health": Service.HEALTH,
    "/api/health": Service.HEALTH,
    "/api/health/ready": Service.HEALTH,
    "/api/health/startup": Service.HEALTH,
    "/v2/health/live": Service.HEALTH,
    "/v2/health/ready": Service.HEALTH,
    **dict.fromkeys(MODEL_READY, Service.HEALTH),
    "/metrics": Service.METRICS,
    "/page/server.json": Service.PAGE,
    # MLflow signs its events, and sends no token.
    "/webhooks/mlflow": Service.HEALTH,
    # The files of the page are the same for every server, and ask for the token that the others need.
    "/": Service.HEALTH,
    "/page/{digest}/{name}": Service.HEALTH,
}
"""What routes that call no model belong to, by the templates of their paths; others describe the models."""

SAN_TYPES = ("DNS", "URI", "email", "IP Address")
"""Types of the names in a certificate that name a caller, as `ssl` calls them. gRPC has no others."""

WITHOUT_BODY = ("GET", "HEAD", "OPTIONS")
"""Methods whose requests normally have no body, so that their connection can stay open."""

PREDICTION = ("/invocations", "/prediction", "/infer")
"""Ends of the templates of routes that call a model."""


def service_of(template: str) -> Service:
    """Returns what a route belongs to, by the template of its path."""
    if template.endswith(PREDICTION):
        return Service.PREDICT
    return _SERVICES.get(template, Service.MODELS)


def permit_of(gate: Gate, service: Service, scope: Scope) -> Permit:
    """Returns the permit of the caller of a request; raises the errors of `Gate.enter`.

    Args:
        gate: Recognizes callers.
        service: What the request uses.
        scope: ASGI's connection scope.

    """
    sent = [value.decode("latin-1") for name, value in scope["headers"] if name == AUTHORIZATION]
    names: Callable[[], list[str]] = lambda: scope.get(CERTIFICATE_KEY, [])  # noqa: E731 - its type is checked here
    return gate.enter(service, sent, names)


def visible(scope: Scope, service: Service, entries: list[Entry]) -> list[Entry]:
    """Returns the models that a request may see by a service; all of them if every caller may call."""
    permit: Permit | None = scope.get(PERMIT_KEY)
    return entries if permit is None else permit.visible(service, entries)


def peer_of(scope: Scope) -> str:
    """Returns the caller's address as gRPC writes it, such as `ipv4:10.0.0.7:4242`; empty if it is unknown."""
    client = scope.get("client")
    if client is None:
        return ""
    host, port = client
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def alternative_names(certificate: dict[str, Any] | None) -> list[str]:
    """Returns the subject alternative names in a certificate, as `SSLObject.getpeercert` returns it.

    They are those that gRPC knows, in its order and in its form of IPv6 addresses.
    """
    names = (certificate or {}).get("subjectAltName", ())
    return [_address(value) if of == "IP Address" else str(value) for of, value in names if of in SAN_TYPES]


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        return text


class GuardedRoute(BaseRoute):
    """A route for callers that are recognized and permitted. Others get status 401 or 403."""

    def __init__(self, route: BaseRoute, gate: Gate, open_calls: OpenCalls) -> None:
        self._route = route
        self._gate = gate
        self._open_calls = open_calls
        self.path = str(getattr(route, "path", ""))
        self.methods: Collection[str] | None = getattr(route, "methods", None)
        self._service = service_of(self.path)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Returns whether the route matches a request."""
        return self._route.matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request with a matching path."""
        is_checked_later = self._service is Service.PREDICT and scope["method"] in (self.methods or ())
        if not is_checked_later:
            try:
                scope[PERMIT_KEY] = permit_of(self._gate, self._service, scope)
            except ServingError as error:
                if error.is_frequent:
                    self._open_calls.refused("", error, peer_of(scope))
                response = getattr(self._route, "of_error", of_error)(error)
                if scope["method"] not in WITHOUT_BODY:  # What the caller is still sending is not read.
                    response.headers.append(CLOSE)
                await response.send(send)
                return
        await self._route.handle(scope, receive, send)


def guarded(route: BaseRoute, gate: Gate | None, open_calls: OpenCalls) -> BaseRoute:
    """Returns a route behind the gate; the route itself if there is no gate, or for what is open to everyone.

    Args:
        route: The route.
        gate: Recognizes callers; None if every caller may call.
        open_calls: Counts refusals for the log.

    """
    path = str(getattr(route, "path", ""))
    is_open = service_of(path) is Service.HEALTH and not (gate is not None and gate.has_rules and path in MODEL_READY)
    if gate is None or is_open:
        return route
    return GuardedRoute(route, gate, open_calls)
