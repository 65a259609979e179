"""The route /metrics, for Prometheus and everything else that reads its formats.

Rule of this module: it chooses the format. What is shown is in `mlflow_grpc.telemetry`.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from mlflow_grpc.engine.gauges import Gauges
from mlflow_grpc.telemetry.exposition import OPEN_METRICS, TEXT


def routes(gauges: Gauges) -> list[BaseRoute]:
    """Makes the route that shows the figures of the server, with its gauges at their present values."""

    async def show(request: Request) -> Response:
        is_open_metrics = "application/openmetrics-text" in request.headers.get("accept", "")
        await gauges.refresh_all()
        text = await gauges.metrics.text(is_open_metrics=is_open_metrics)
        media_type = OPEN_METRICS if is_open_metrics else TEXT
        return Response(text, headers={"content-type": media_type, "cache-control": "no-store"})

    return [Route("/metrics", show)]
