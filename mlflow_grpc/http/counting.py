"""Counts of HTTP requests by route.

Rule of this module: it counts requests without changing them, and answers only those whose route raised an exception.
The path that a caller sends is never a label.
"""

import time
from collections.abc import Collection

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlflow_grpc.errors import ServingError
from mlflow_grpc.http.errors import of_error
from mlflow_grpc.http.http_call import TEMPLATE_KEY
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.telemetry.calls import HttpRoute
from mlflow_grpc.telemetry.instruments import Gauge
from mlflow_grpc.telemetry.metrics import Metrics

logger = get_logger(__name__)

ABORTED = 499
"""Status of a request whose caller left before its response began, as in nginx and gRPC's HTTP mapping."""

READING = ("GET", "HEAD")
"""Methods with their own series for a route that takes any, such as that of a directory."""

FAILED = "The server failed to answer. What happened is in its log."


class CountedRoute(BaseRoute):
    """A route whose requests are counted, including those with an unsupported method."""

    def __init__(self, route: BaseRoute, metrics: Metrics) -> None:
        self._route = route
        self._template = template = str(getattr(route, "path", ""))
        methods: Collection[str] = getattr(route, "methods", None) or READING
        self._handle = counted(route.handle, metrics.http_route(template, tuple(sorted(methods))), metrics.http_active)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Returns whether the route matches a request."""
        return self._route.matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers and counts a request."""
        scope[TEMPLATE_KEY] = self._template
        await self._handle(scope, receive, send)


def counted(app: ASGIApp, route_metrics: HttpRoute, active: Gauge) -> ASGIApp:
    """Returns an application that counts the requests and passes them on.

    Args:
        app: Answers the requests.
        route_metrics: Metrics that count them.
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
        except Exception:
            if status != ABORTED:  # The response has begun, so uvicorn can only close the connection.
                raise
            logger.exception("%s %s failed", scope["method"], scope.get(TEMPLATE_KEY, ""))
            await of_error(ServingError(FAILED)).send(count_and_send)
        finally:
            active.add(-1)
            route_metrics.ended(scope["method"], status, time.monotonic() - started_at)

    return answer
