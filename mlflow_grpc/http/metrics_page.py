"""The route /metrics, for Prometheus and other readers of its formats.

Rule of this module: it selects the format. `mlflow_grpc.telemetry` provides the metrics.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from mlflow_grpc.engine.gauges import Gauges
from mlflow_grpc.telemetry.exposition import OPEN_METRICS, TEXT


def routes(gauges: Gauges) -> list[BaseRoute]:
    """Returns the route that shows the metrics of the server, with the current values of its gauges."""

    async def show(request: Request) -> Response:
        is_open_metrics = "application/openmetrics-text" in request.headers.get("accept", "")
        await gauges.refresh_all()
        text = await gauges.metrics.text(is_open_metrics=is_open_metrics)
        media_type = OPEN_METRICS if is_open_metrics else TEXT
        return Response(text, headers={"content-type": media_type, "cache-control": "no-store"})

    return [Route("/metrics", show)]
