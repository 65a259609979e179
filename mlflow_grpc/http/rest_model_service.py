"""The routes of the package rest-model-service, under /api, for models that have the MLModel interface.

Source: `rest_model_service.routes` and `helpers.build_models` of version 0.6.0. docs/http.md lists the differences.
"""

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from mlflow_grpc.access.permits import Permit
from mlflow_grpc.choices import Service
from mlflow_grpc.daemon_threads import in_daemon_thread
from mlflow_grpc.engine.admission import Stage
from mlflow_grpc.engine.catalog import STILL_LOADING, Catalog, Entry, State
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import Fault, NotReady, RefusedByModel, ServingError, UnknownModel
from mlflow_grpc.http.dispatch import HttpDispatcher
from mlflow_grpc.http.errors import headers_of, status_of
from mlflow_grpc.http.guard import PERMIT_KEY, visible
from mlflow_grpc.http.http_call import HttpCall
from mlflow_grpc.http.response import JSON, WholeResponse
from mlflow_grpc.http.rest_record_request import VALIDATION_ERROR, BodyRefused, RestRecordRequest
from mlflow_grpc.http.route import OtherPaths
from mlflow_grpc.own_loggers import get_logger

logger = get_logger(__name__)

PREFIX = "/api"

SCHEMA_VALIDATION_ERROR, SERVICE_ERROR = "SchemaValidationError", "ServiceError"
"""Types of errors: the model refused a valid record; the call failed."""


class HealthCheck(NamedTuple):
    """A route for probes, and the JSON of its answers."""

    path: str
    key: str
    good: str
    """Value of the key with status 200."""
    bad: str
    """Value of the key with status 503."""


HEALTH = HealthCheck("/health", "health_status", "HEALTHY", "NOT_HEALTHY")
READINESS = HealthCheck("/health/ready", "readiness_status", "ACCEPTING_TRAFFIC", "REFUSING_TRAFFIC")
STARTUP = HealthCheck("/health/startup", "startup_status", "STARTED", "NOT_STARTED")


def routes(dispatcher: HttpDispatcher, catalog: Catalog, is_serving: Callable[[], bool]) -> list[BaseRoute]:
    """Returns the routes.

    Args:
        dispatcher: Creates the endpoints that call a model.
        catalog: The models.
        is_serving: Returns the server's health.

    """
    service = _ModelService(catalog, is_serving)
    prediction = dispatcher.model_endpoint(_predict, service.model_from_path, error_response)
    endpoints: list[tuple[str, Any, str]] = [
        (HEALTH.path, service.health, "GET"),
        (READINESS.path, service.readiness, "GET"),
        (STARTUP.path, service.startup, "GET"),
        ("/models", service.models, "GET"),
        ("/models/{name}/metadata", service.metadata, "GET"),
        ("/models/{name}/prediction", prediction, "POST"),
    ]
    family = [_Route(f"{PREFIX}{path}", endpoint, method, service) for path, endpoint, method in endpoints]
    return [*family, OtherPaths(PREFIX, family, _NOT_FOUND)]


def hosted(entries: Iterable[Entry]) -> Iterator[tuple[Entry, ServableModel]]:
    """Yields the models that have the MLModel interface, with or without an endpoint, in their order."""
    for entry in entries:
        if entry.loaded is not None and entry.loaded.rest_records is not None:
            yield entry, entry.loaded


def service_name(entry: Entry, model: ServableModel) -> str:
    """Returns the name of a model in these routes: `name` in the configuration, or its unchanged `qualified_name`."""
    return entry.config.name or (model.rest_records.qualified_name if model.rest_records else entry.name)


def error_response(error: ServingError, _: str) -> WholeResponse:
    """Returns the response for a failed call. The request id is in a header."""
    status, exception = status_of(error), error.__cause__
    if isinstance(error, UnknownModel):
        return _response(_phrase(HTTPStatus.NOT_FOUND), status)
    if isinstance(error, BodyRefused):
        return _response(error.content, status)
    if isinstance(error, RefusedByModel):
        return _response(_error(SCHEMA_VALIDATION_ERROR, error.refusal), status)
    text = str(exception) if error.shown is not None and exception is not None else error.message
    response = _response(_error(VALIDATION_ERROR if error.fault is Fault.CALLER else SERVICE_ERROR, text), status)
    response.headers += headers_of(error)
    return response


async def _predict(call: HttpCall, body: bytes, engine: Engine) -> WholeResponse:
    request = RestRecordRequest(body, call.metadata("content-type"), call)
    call.free_room()
    return WholeResponse(await engine.predict(request, call.deadline))


class _ModelService:
    """The endpoints that call no model, and the lookup of models."""

    def __init__(self, catalog: Catalog, is_serving: Callable[[], bool]) -> None:
        self._catalog, self._is_serving = catalog, is_serving

    async def health(self, _: Request) -> JSONResponse:
        """Answers 200, unless hung calls occupy the threads of all models."""
        is_stuck = self._catalog.is_exhausted
        return _status(HEALTH, is_good=not is_stuck)

    async def readiness(self, _: Request) -> JSONResponse:
        """Answers 200 while the server's health is SERVING."""
        return _status(READINESS, is_good=self._is_serving())

    async def startup(self, _: Request) -> JSONResponse:
        """Answers 200 once no model is being loaded."""
        is_loading = any(entry.engine.admission.stage is Stage.LOADING for entry in self._catalog.entries)
        return _status(STARTUP, is_good=not is_loading)

    async def models(self, request: Request) -> JSONResponse:
        """Lists the loaded models."""
        return JSONResponse({"models": [_details(entry, model) for entry, model in hosted(self._visible(request))]})

    async def metadata(self, request: Request) -> Response:
        """Describes a model; 500 if there is no such model, as in rest-model-service, and 403 if the caller may not."""
        name = request.path_params["name"]
        if (pair := self._find(name)) is None or (records := pair[1].rest_records) is None:
            return _failed(f"Instance of model '{name}' not found in ModelManager.")
        entry, model = pair
        permit: Permit | None = request.scope.get(PERMIT_KEY)
        try:
            if permit is not None:
                permit.check_model(Service.MODELS, entry.name, entry.version)
        except ServingError as error:
            refused = error_response(error, "")
            return Response(refused.body, refused.status, media_type=JSON)
        try:
            inputs, outputs = await in_daemon_thread(lambda: records.json_schemas, name="json-schemas")
            return JSONResponse({**_details(entry, model), "input_schema": inputs, "output_schema": outputs})
        except Exception:
            logger.exception("%s: its schemas cannot be written as JSON Schema", entry.label)
            return _failed("The model's schemas cannot be written as JSON Schema. The server's log says why.")

    def model_from_path(self, call: HttpCall) -> Entry:
        """Returns the model for a prediction; raises NotReady or UnknownModel."""
        pair = self._find(call.scope["path_params"]["name"])
        if pair is not None and pair[0].config.endpoint:
            return self._catalog.resolve(pair[0].name)
        if pair is None and any(entry.state is State.LOADING for entry in self._catalog.entries):
            raise NotReady(STILL_LOADING)
        raise UnknownModel("There is no such model here, or it has no endpoint.")

    def has_path(self, scope: Scope) -> bool:
        """Returns False for a prediction path whose model does not exist or has no endpoint."""
        if not scope["path"].endswith("/prediction"):
            return True
        pair = self._find(scope["path_params"]["name"])
        return pair is not None and pair[0].config.endpoint

    def _visible(self, request: Request) -> list[Entry]:
        return visible(request.scope, Service.MODELS, self._catalog.entries)

    def _find(self, name: str) -> tuple[Entry, ServableModel] | None:
        pairs = {id(entry): (entry, model) for entry, model in hosted(self._catalog.entries)}
        pair = next((pair for pair in pairs.values() if service_name(*pair) == name), None)
        # Of several versions the default one.
        return pair and pairs.get(id(self._catalog.get(pair[0].name, "")), pair)


def _details(entry: Entry, model: ServableModel) -> dict[str, Any]:
    return {
        "display_name": model.model.info.display_name,
        "qualified_name": service_name(entry, model),
        "description": model.model.info.description,
        "version": entry.version,
    }


def _error(error_type: str, message: str) -> dict[str, Any]:
    return {"type": error_type, "messages": [message]}


def _phrase(status: HTTPStatus) -> dict[str, Any]:
    return {"detail": status.phrase}


def _status(check: HealthCheck, *, is_good: bool) -> JSONResponse:
    status = HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse({check.key: check.good if is_good else check.bad}, status)


def _failed(text: str) -> JSONResponse:
    return JSONResponse(_error(SERVICE_ERROR, text), HTTPStatus.INTERNAL_SERVER_ERROR)


def _response(content: dict[str, Any], status: int) -> WholeResponse:
    return WholeResponse(bytes(JSONResponse(content).body), status=status)


class _Route(Route):
    """A route that refuses other HTTP methods as FastAPI does."""

    def __init__(self, path: str, endpoint: Any, method: str, service: _ModelService) -> None:
        super().__init__(path, endpoint, methods=[method])
        content = _phrase(HTTPStatus.METHOD_NOT_ALLOWED)
        self._wrong_method = JSONResponse(content, HTTPStatus.METHOD_NOT_ALLOWED, {"allow": method})
        self._service = service

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request with a matching path."""
        if self.methods is None or scope["method"] in self.methods:
            await self.app(scope, receive, send)
        else:
            await (self._wrong_method if self._service.has_path(scope) else _NOT_FOUND)(scope, receive, send)


_NOT_FOUND = JSONResponse(_phrase(HTTPStatus.NOT_FOUND), HTTPStatus.NOT_FOUND)
