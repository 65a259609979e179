"""The page for trying models in a browser: the route / and its files.

Rule of this module: it serves the static files of the folder `page`, with headers that prevent a browser from running
or loading anything else. The page gets its data from /models, /metrics and /invocations.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

import mlflow_grpc
from mlflow_grpc.http.response import TEXT_UTF8
from mlflow_grpc.http.route import JsonRoute
from mlflow_grpc.http.security_headers import FOR_PAGE
from mlflow_grpc.settings import Settings

FOLDER = Path(__file__).parent / "page"

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

REVALIDATED, FOR_A_YEAR = "no-cache", "public, max-age=31536000, immutable"

LINKED = ("/docs", "/openapi.json")
"""Routes that the page links to, if the server has them."""


def routes(settings: Settings, grpc_port: Callable[[], int], paths: Collection[str]) -> list[BaseRoute]:
    """Returns the routes of the page.

    Args:
        settings: Settings that the page shows.
        grpc_port: Returns the port of gRPC, which is known once the server listens.
        paths: Paths of the other routes.

    """
    files = {file.name: file.read_bytes() for file in sorted(FOLDER.iterdir()) if file.suffix in MEDIA_TYPES}
    digest = _digest(files)
    # The digest is in the address of the files. A browser may keep them for a year, and loads new files immediately.
    index = files.pop("index.html").replace(b'"page/', f'"page/{digest}/'.encode())
    links = [path.lstrip("/") for path in LINKED if path in paths]

    async def show(request: Request) -> Response:
        return _response(request, index, ".html", digest, REVALIDATED)

    async def send_file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            return Response("The page has no such file.", 404, FOR_PAGE, TEXT_UTF8)
        # Addresses of other versions are answered too, because the server may have been replaced in between.
        caching = FOR_A_YEAR if request.path_params["digest"] == digest else REVALIDATED
        return _response(request, files[name], Path(name).suffix, digest, caching)

    async def describe_server(_: Request) -> JSONResponse:
        described = {
            "version": mlflow_grpc.__version__,
            "grpc_port": grpc_port(),
            "tls": settings.tls_cert is not None,
            "max_message_bytes": settings.max_message_bytes,
            "links": links,
        }
        return JSONResponse(described, headers={**FOR_PAGE, "cache-control": "no-store"})

    return [
        JsonRoute("/", show),
        JsonRoute("/page/server.json", describe_server),
        JsonRoute("/page/{digest}/{name}", send_file),
    ]


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:16]


def _response(request: Request, content: bytes, suffix: str, digest: str, caching: str) -> Response:
    """Returns the response with a file, or status 304 if the browser already has it."""
    headers = {**FOR_PAGE, "cache-control": caching, "etag": f'"{digest}"'}
    if headers["etag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers={**headers, "content-type": MEDIA_TYPES[suffix]})
