"""Counts of HTTP requests, by their routes.

Rule of this module: it counts and changes nothing. The path that a caller sends is never a label.
"""

import time

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlflow_grpc.http.http_call import TEMPLATE_KEY
from mlflow_grpc.telemetry.calls import HttpRoute
from mlflow_grpc.telemetry.instruments import Gauge
from mlflow_grpc.telemetry.metrics import Metrics

ABORTED = 499
"""Status of a request whose caller has left before its response began, as nginx and gRPC's HTTP mapping have it."""


class CountedRoute(BaseRoute):
    """A route whose requests are counted, those of a method that it does not take included."""

    def __init__(self, route: BaseRoute, metrics: Metrics) -> None:
        self._route = route
        self._template = template = str(getattr(route, "path", ""))
        methods: set[str] = getattr(route, "methods", None) or set()
        self._handle = counted(route.handle, metrics.http_route(template, tuple(sorted(methods))), metrics.http_active)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Returns whether the route takes a request."""
        return self._route.matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers and counts a request."""
        scope[TEMPLATE_KEY] = self._template
        await self._handle(scope, receive, send)


def counted(app: ASGIApp, figures: HttpRoute, active: Gauge) -> ASGIApp:
    """Returns an application that counts the requests which it hands on.

    Args:
        app: Answers the requests.
        figures: Where they are counted.
        active: Number of requests without a response.

    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        started_at = time.monotonic()
        status = ABORTED

        async def count_and_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        active.add()
        try:
            await app(scope, receive, count_and_send)
        finally:
            active.add(-1)
            figures.ended(scope["method"], status, time.monotonic() - started_at)

    return answer
