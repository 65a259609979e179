"""The routes of the OpenAPI document: /openapi.json.

Rule of this module: the document is made when somebody asks for it, outside of the event loop, and kept until another
model is loaded.
"""

import asyncio
import json
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from mlflow_grpc.config import ServiceInfo
from mlflow_grpc.engine.catalog import Catalog
from mlflow_grpc.http.openapi.document import document_of
from mlflow_grpc.own_loggers import get_logger

logger = get_logger(__name__)


def routes(catalog: Catalog, service: ServiceInfo) -> list[BaseRoute]:
    """Makes the routes.

    Args:
        catalog: The models.
        service: Title, version and description of the document.

    """
    document = _Document(catalog, service)
    return [Route("/openapi.json", document.respond)]


class _Document:
    """The document of the models that are loaded now."""

    def __init__(self, catalog: Catalog, service: ServiceInfo) -> None:
        self._catalog, self._service = catalog, service
        self._lock = asyncio.Lock()
        self._models: list[object] = []
        self._body = b""

    async def respond(self, _: Request) -> Response:
        """Answers with the document."""
        try:
            async with self._lock:
                models: list[object] = [entry.loaded for entry in self._catalog.entries]
                if not self._body or any(now is not then for now, then in zip(models, self._models, strict=True)):
                    # The thread only reads the catalog. Another model that is loaded meanwhile makes a new document.
                    self._body = await asyncio.to_thread(self._make)
                    self._models = models
        except Exception:
            logger.exception("the OpenAPI document cannot be made")
            body = {
                "error_code": "INTERNAL_ERROR",
                "message": "The document cannot be made. The server's log says why.",
            }
            return JSONResponse(body, HTTPStatus.INTERNAL_SERVER_ERROR)
        return Response(self._body, media_type="application/json")

    def _make(self) -> bytes:
        return json.dumps(document_of(self._catalog, self._service)).encode()
