"""Routes whose errors are in JSON.

Rule of this module: it changes no successful response.
"""

from http import HTTPStatus

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from mlflow_grpc.http.response import WholeResponse


class JsonRoute(Route):
    """A route that refuses HTTP methods other than its own with an error like those of the other refusals.

    `detail` is all that MLflow's server sends, which is FastAPI's body.
    """

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
