"""Counts of HTTP requests by route.

Rule of this module: it counts requests without changing them. The path that a caller sends is never a label.
"""

import time

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlflow_grpc.http.http_call import TEMPLATE_KEY
from mlflow_grpc.telemetry.calls import HttpRoute
from mlflow_grpc.telemetry.instruments import Gauge
from mlflow_grpc.telemetry.metrics import Metrics

ABORTED = 499
"""Status of a request whose caller left before its response began, as in nginx and gRPC's HTTP mapping."""


class CountedRoute(BaseRoute):
    """A route whose requests are counted, including those with an unsupported method."""

    def __init__(self, route: BaseRoute, metrics: Metrics) -> None:
        self._route = route
        self._template = template = str(getattr(route, "path", ""))
        methods: set[str] = getattr(route, "methods", None) or set()
        self._handle = counted(route.handle, metrics.http_route(template, tuple(sorted(methods))), metrics.http_active)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Returns whether the route matches a request."""
        return self._route.matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers and counts a request."""
        scope[TEMPLATE_KEY] = self._template
        await self._handle(scope, receive, send)


def counted(app: ASGIApp, figures: HttpRoute, active: Gauge) -> ASGIApp:
    """Returns an application that counts the requests and passes them on.

    Args:
        app: Answers the requests.
        figures: Metrics that count them.
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
