"""Answers to paths that the server does not have, and to methods that a path does not have.

Rule of this module: it changes no successful response. MLflow's server sends only `detail`, as FastAPI does.
"""

from collections.abc import Sequence
from http import HTTPStatus

from starlette.datastructures import URL
from starlette.responses import RedirectResponse
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

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


def redirect_of(scope: Scope, routes: Sequence[BaseRoute]) -> RedirectResponse | None:
    """Returns a redirect to the path with or without a slash at its end; None if no route has that path.

    Source: `starlette.routing.Router`, which MLflow's server and rest-model-service use.
    """
    path: str = scope["path"]
    elsewhere = {**scope, "path": path.rstrip("/") if path.endswith("/") else f"{path}/"}
    if any(route.matches(elsewhere)[0] is not Match.NONE for route in routes):
        return RedirectResponse(str(URL(scope=elsewhere)))
    return None


def other_paths(routes: Sequence[BaseRoute]) -> ASGIApp:
    """Returns the application for requests whose path belongs to none of the routes: it redirects, or answers 404."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await (redirect_of(scope, routes) or _not_found)(scope, receive, send)

    return answer


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request with 404."""
    text = f"There is no {scope['path']!r} here. To call a model, POST to /invocations or /models/NAME/invocations."
    body = {"error_code": "ENDPOINT_NOT_FOUND", "message": text, "detail": "Not Found"}
    await WholeResponse.of_json(body, HTTPStatus.NOT_FOUND).send(send)


class OtherPaths(Route):
    """The route for all other paths below the prefix of a family of routes.

    A path with a superfluous or missing slash at its end is redirected, as in starlette's Router.
    """

    def __init__(self, prefix: str, family: Sequence[Route], not_found: ASGIApp) -> None:
        """Takes the routes of the family, and what answers all other paths."""
        super().__init__(prefix + "/{path:path}", not_found)
        self._family = family
        self._not_found = not_found

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Returns whether the route matches a request."""
        return (Match.NONE, {}) if self._is_in_family(scope) else super().matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Redirects, or answers that there is nothing."""
        await (redirect_of(scope, self._family) or self._not_found)(scope, receive, send)

    def _is_in_family(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is not Match.NONE for route in self._family)
