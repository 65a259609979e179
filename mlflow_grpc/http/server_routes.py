"""The routes that describe the server and call no model: /ping, /health, /version, /metrics and /models.

Rule of this module: it writes what other packages know. /ping, /health and /version are those of
`mlflow.pyfunc.scoring_server.init`; /metrics has the formats of `mlflow_grpc.telemetry`; /models is the answer of the
service mlflow_grpc.v1.Models as protobuf's JSON, with the field names of mlflow_grpc/v1/models.proto.
"""

from collections.abc import Callable
from http import HTTPStatus
from importlib.metadata import version

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from mlflow_grpc.access.permits import Permit
from mlflow_grpc.engine.gauges import Gauges
from mlflow_grpc.http.guard import PERMIT_KEY
from mlflow_grpc.http.response import JSON, accepted_media_types, media_type_of
from mlflow_grpc.http.route import JsonRoute
from mlflow_grpc.telemetry.exposition import OPEN_METRICS, PROMETHEUS

NO_STORE = {"cache-control": "no-store"}


def routes(
    gauges: Gauges, is_serving: Callable[[], bool], describe_models: Callable[[Permit | None], Message]
) -> list[BaseRoute]:
    """Returns the routes.

    Args:
        gauges: The gauges, which are set to their current values before the metrics are written.
        is_serving: Returns the server's health.
        describe_models: Returns the ListModelsResponse with the models that a caller may see.

    """

    async def ping(_: Request) -> Response:
        status = HTTPStatus.OK if is_serving() else HTTPStatus.SERVICE_UNAVAILABLE
        return Response("\n", status, media_type=JSON)

    async def mlflow_version(_: Request) -> Response:
        return Response(version("mlflow"), media_type=JSON)

    async def metrics(request: Request) -> Response:
        is_open_metrics = media_type_of(OPEN_METRICS) in accepted_media_types(request.headers.get("accept", ""))
        await gauges.refresh_all()
        text = await gauges.metrics.text(is_open_metrics=is_open_metrics)
        return Response(text, headers={"content-type": OPEN_METRICS if is_open_metrics else PROMETHEUS, **NO_STORE})

    async def list_models(request: Request) -> JSONResponse:
        listed = MessageToDict(
            describe_models(request.scope.get(PERMIT_KEY)),
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        return JSONResponse(listed, headers={**NO_STORE, "x-content-type-options": "nosniff"})

    return [
        JsonRoute("/ping", ping),
        JsonRoute("/health", ping),
        JsonRoute("/version", mlflow_version),
        JsonRoute("/metrics", metrics),
        JsonRoute("/models", list_models),
    ]
