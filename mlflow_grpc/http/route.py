"""Refusals of paths that the server does not have, and of methods that a path does not have.

Rule of this module: it changes no successful response. MLflow's server sends only `detail`, as FastAPI does.
"""

from http import HTTPStatus

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from mlflow_grpc.http.response import WholeResponse


class JsonRoute(Route):
    """A route that refuses HTTP methods other than its own with an error in JSON."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request with a matching path."""
        methods = sorted(self.methods or ())
        if not methods or scope["method"] in methods:
            await self.app(scope, receive, send)
            return
        status = HTTPStatus.METHOD_NOT_ALLOWED
        message = f"{self.path} takes {' and '.join(methods)}, not {scope['method']}."
        body = {"error_code": "BAD_REQUEST", "message": message, "detail": status.phrase}
        response = WholeResponse.of_json(body, status)
        response.headers.append((b"allow", ", ".join(methods).encode()))
        await response.send(send)


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request whose path belongs to no route."""
    text = f"There is no {scope['path']!r} here. To call a model, POST to /invocations or /models/NAME/invocations."
    body = {"error_code": "ENDPOINT_NOT_FOUND", "message": text, "detail": "Not Found"}
    await WholeResponse.of_json(body, HTTPStatus.NOT_FOUND).send(send)
