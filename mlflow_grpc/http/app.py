"""The ASGI application of the HTTP port: its routes.

Rule of this module: it combines the families of routes. Each family's module defines what its routes do.
"""

from collections.abc import Callable

from _mlflow_grpc_protocol.metadata import IGNORED_KEY, REQUEST_ID_KEY, SERVER_TIMING_KEY, VERSION_KEY
from google.protobuf.message import Message as ProtobufMessage
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlflow_grpc.access.gate import Gate
from mlflow_grpc.access.permits import Permit
from mlflow_grpc.calls.inference_models import InferenceModels
from mlflow_grpc.calls.open_calls import OpenCalls
from mlflow_grpc.config import ServiceInfo
from mlflow_grpc.engine.gauges import Gauges
from mlflow_grpc.http import api_docs, invocations, open_inference, page, rest_model_service, server_routes, webhook
from mlflow_grpc.http.counting import CountedRoute, counted
from mlflow_grpc.http.dispatch import HttpDispatcher
from mlflow_grpc.http.errors import RETRY_KEY
from mlflow_grpc.http.guard import guarded
from mlflow_grpc.http.response import CLOSE
from mlflow_grpc.http.route import JsonRoute, other_paths
from mlflow_grpc.settings import Settings

EXPOSED_HEADERS = [REQUEST_ID_KEY, VERSION_KEY, IGNORED_KEY, RETRY_KEY, SERVER_TIMING_KEY]
"""Headers of responses that scripts of other origins may read."""


class HttpApp:
    """The application, and the server state that its responses show."""

    def __init__(
        self,
        settings: Settings,
        open_calls: OpenCalls,
        gauges: Gauges,
        service: ServiceInfo,
        describe_models: Callable[[Permit | None], ProtobufMessage],
        inference_models: InferenceModels,
        gate: Gate | None = None,
        hint: webhook.Hint = lambda _name, _alias: 0,
    ) -> None:
        """Creates the routes.

        Args:
            settings: Limits and origins.
            open_calls: Registry of the calls.
            gauges: The gauges of the server, with all its other metrics.
            service: Title of the OpenAPI document.
            describe_models: Returns the ListModelsResponse with the models that a caller may see.
            inference_models: The models, as the Open Inference Protocol describes them, and the server's health.
            gate: Recognizes callers; None if every caller may call.
            hint: Makes the models that follow a registered model query the registry now.

        """
        catalog, is_serving = inference_models.catalog, inference_models.is_serving
        self.grpc_port = 0
        """Port of gRPC, which the page shows; 0 until the server listens."""
        self.dispatcher = HttpDispatcher(
            open_calls,
            max_bytes=settings.max_message_bytes,
            max_arriving_bytes=settings.queue_bytes,
            shows_exceptions=settings.show_exceptions,
            has_server_timing=settings.server_timing,
            gate=gate,
        )
        routes = [
            *invocations.routes(self.dispatcher, catalog),
            *server_routes.routes(gauges, is_serving, describe_models),
            *rest_model_service.routes(self.dispatcher, catalog, is_serving),
            *open_inference.routes(self.dispatcher, inference_models),
            *api_docs.routes(catalog, service),
            *webhook.routes(settings.webhook_secret, hint),
        ]
        if settings.page:
            routes += page.routes(settings, lambda: self.grpc_port, [getattr(route, "path", "") for route in routes])
        metrics = gauges.metrics
        redirected = [route for route in routes if isinstance(route, JsonRoute)]  # The routes under /api redirect too.
        router = Router(
            [CountedRoute(guarded(route, gate, open_calls), metrics) for route in routes],
            redirect_slashes=False,
            default=counted(other_paths(redirected), metrics.http_route(""), metrics.http_active),
        )
        self.asgi: ASGIApp = self._closing_connections(router)
        if origins := [origin.strip() for origin in settings.http_cors_origin.split(",") if origin.strip()]:
            self.asgi = CORSMiddleware(
                self.asgi,
                allow_origins=origins,
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=EXPOSED_HEADERS,
            )

    def _closing_connections(self, app: ASGIApp) -> ASGIApp:
        """Returns an application whose responses close their connections once callers are sent away."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_and_close(message: Message) -> None:
                if self.dispatcher.is_closing and message["type"] == "http.response.start":
                    headers = message["headers"]
                    if CLOSE not in headers:
                        message = {**message, "headers": [*headers, CLOSE]}
                await send(message)

            await app(scope, receive, send_and_close)

        return answer
