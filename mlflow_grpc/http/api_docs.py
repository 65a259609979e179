"""The OpenAPI document at /openapi.json, and Swagger UI for it at /docs.

Rule of this module: the document is generated on the first request, outside the event loop, and kept until another
model is loaded. Callers that may see other models get another document. The page loads nothing from another host.
"""

import asyncio
import json
from html import escape
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path

from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from mlflow_grpc.choices import Service
from mlflow_grpc.config import ServiceInfo
from mlflow_grpc.daemon_threads import in_daemon_thread
from mlflow_grpc.engine.catalog import Catalog, Entry
from mlflow_grpc.http.guard import visible
from mlflow_grpc.http.response import JSON
from mlflow_grpc.http.route import JsonRoute
from mlflow_grpc.http.security_headers import FOR_SWAGGER_UI
from mlflow_grpc.own_loggers import get_logger

logger = get_logger(__name__)

SWAGGER_UI = "fastapi_swagger"
"""Package with the files of Swagger UI. It is not imported, because it would import FastAPI."""

# The addresses are relative, so that the page works behind a proxy that adds a prefix.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="docs/files/favicon-32x32.png">
<link rel="stylesheet" href="docs/files/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/files/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""
"""Without `validatorUrl: null`, Swagger UI would send the document to a validator on another host."""


def routes(catalog: Catalog, service: ServiceInfo) -> list[BaseRoute]:
    """Returns the routes.

    Args:
        catalog: The models.
        service: Title, version and description of the document.

    """
    document = _CachedDocument(catalog, service)
    page = PAGE.format(title=escape(service.title or "mlflow-grpc"))

    async def docs(_: Request) -> Response:
        return HTMLResponse(page, headers=FOR_SWAGGER_UI)

    async def start(_: Request) -> Response:
        return Response(START, media_type="text/javascript")

    return [
        JsonRoute("/openapi.json", document.respond),
        JsonRoute("/docs", docs),
        JsonRoute("/docs/start.js", start),
        Mount("/docs/files", ExceptionMiddleware(StaticFiles(directory=swagger_ui()))),
    ]


def swagger_ui() -> Path:
    """Returns the directory with the files of Swagger UI."""
    spec = find_spec(SWAGGER_UI)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"there is no package {SWAGGER_UI}; install mlflow-grpc with its requirements")
    return Path(spec.submodule_search_locations[0]) / "resources"


class _CachedDocument:
    """The documents of the loaded models."""

    def __init__(self, catalog: Catalog, service: ServiceInfo) -> None:
        self._catalog, self._service = catalog, service
        self._lock = asyncio.Lock()
        self._revision = -1
        self._bodies: dict[tuple[int, ...], bytes] = {}  # By the models in them. The rules limit their number.

    async def respond(self, request: Request) -> Response:
        """Returns the document of the models that the caller may see."""
        try:
            async with self._lock:
                revision, entries = self._catalog.revision, self._catalog.entries
                if revision != self._revision:
                    self._bodies, self._revision = {}, revision
                shown = visible(request.scope, Service.MODELS, entries)
                numbers = tuple(number for number, entry in enumerate(entries) if entry in shown)
                document = self._bodies.get(numbers)
                if document is None:
                    # The thread only reads the catalog. If another model is loaded meanwhile, a new document follows.
                    document = await in_daemon_thread(lambda: self._make(shown), name="openapi")
                    self._bodies[numbers] = document
        except Exception:
            logger.exception("the OpenAPI document cannot be generated")
            text = "The document cannot be generated. The server's log says why."
            body = {"error_code": "INTERNAL_ERROR", "message": text}
            return JSONResponse(body, HTTPStatus.INTERNAL_SERVER_ERROR)
        return Response(document, media_type=JSON)

    def _make(self, entries: list[Entry]) -> bytes:
        from mlflow_grpc.http.openapi.document import document_of  # The server starts faster without it.

        return json.dumps(document_of(self._catalog, self._service, entries)).encode()
