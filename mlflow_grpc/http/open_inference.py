"""The routes of the Open Inference Protocol under /v2, for clients of Triton, KServe and MLServer.

Source: https://github.com/kserve/open-inference-protocol, and Triton's extensions for binary tensors, model
configuration, statistics and the model repository. Errors have Triton's form, and statuses are Triton's and KServe's.

Rule of this module: it names the model, hands over and answers. `InferenceModels` describes, the engine predicts.
"""

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from mlflow_grpc.access.permits import Permit
from mlflow_grpc.calls.challengers import answering
from mlflow_grpc.calls.inference_models import InferenceModels
from mlflow_grpc.choices import Service
from mlflow_grpc.engine.catalog import Entry, State
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.errors import InvalidPayload, ServingError
from mlflow_grpc.http.dispatch import HttpDispatcher
from mlflow_grpc.http.errors import headers_of, status_of
from mlflow_grpc.http.guard import PERMIT_KEY, visible
from mlflow_grpc.http.http_call import HttpCall
from mlflow_grpc.http.message_json import as_json
from mlflow_grpc.http.response import JSON, WholeResponse
from mlflow_grpc.http.route import OtherPaths
from mlflow_grpc.http.small_body import read_small_body

PREFIX = "/v2"

MODEL_PATHS = (f"{PREFIX}/models/{{name}}", f"{PREFIX}/models/{{name}}/versions/{{version}}")

BINARY = "application/octet-stream"

ALL_STATISTICS = "stats"
"""Name in the path /v2/models/stats, unless a model has it."""


def routes(dispatcher: HttpDispatcher, models: InferenceModels) -> list[BaseRoute]:
    """Returns the routes.

    Args:
        dispatcher: Creates the endpoints that call a model.
        models: Describes the models.

    """
    service = _InferenceService(models)
    infer = dispatcher.model_endpoint(service.infer, service.model_of_call, error_response)
    family = [
        _Route(f"{PREFIX}/health/live", service.live),
        _Route(f"{PREFIX}/health/ready", service.ready),
        _Route(PREFIX, service.server_metadata),
        _Route(f"{PREFIX}/repository/index", service.index, "POST"),
    ]
    for path in MODEL_PATHS:
        family += [
            _Route(path, service.metadata),
            _Route(f"{path}/ready", service.model_ready),
            _Route(f"{path}/config", service.config),
            _Route(f"{path}/stats", service.statistics),
            _Route(f"{path}/infer", infer, "POST"),
        ]
    return [*family, OtherPaths(PREFIX, family, _not_found)]


def error_response(error: ServingError, _: str) -> WholeResponse:
    """Returns the response for an error, with its message only. The request id is in a header."""
    response = WholeResponse.of_json({"error": error.text}, status_of(error))
    response.headers += headers_of(error)
    return response


class _InferenceService:
    """The endpoints."""

    def __init__(self, models: InferenceModels) -> None:
        self._models = models

    async def live(self, _: Request) -> Response:
        """Answers 200, because a server that is not live cannot."""
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        """Answers 200 while the server's health is SERVING."""
        return _readiness({}, is_ready=self._models.is_serving())

    async def server_metadata(self, _: Request) -> Response:
        """Returns name, version and extensions."""
        return JSONResponse(as_json(self._models.server_metadata()))

    async def index(self, request: Request) -> Response:
        """Lists the models of the configuration, or those that are ready."""
        try:
            only_ready = await _asks_for_ready(request)
        except ServingError as error:
            return _failed(error)
        return JSONResponse(as_json(self._models.index(self._visible(request), only_ready=only_ready))["models"])

    async def metadata(self, request: Request) -> Response:
        """Describes the inputs and outputs of a model."""
        name = request.path_params["name"]
        if name == ALL_STATISTICS and not any(entry.name == name for entry in self._models.catalog.entries):
            ready = [entry for entry in self._visible(request) if entry.state is State.READY]
            return self._answer(lambda: JSONResponse(as_json(self._models.statistics(ready))))
        return self._describe(request, lambda entry: self._models.metadata(entry, self._visible(request)))

    async def model_ready(self, request: Request) -> Response:
        """Answers 200 while the health of a model is SERVING."""
        return self._answer(lambda: self._model_readiness(self._described(request, Service.HEALTH)))

    def _model_readiness(self, entry: Entry) -> Response:
        return _readiness({"name": entry.name}, is_ready=self._models.is_ready(entry))

    async def config(self, request: Request) -> Response:
        """Describes a model in Triton's form."""
        return self._answer(lambda: JSONResponse(as_json(self._models.config(self._described(request)))["config"]))

    async def statistics(self, request: Request) -> Response:
        """Returns the statistics of a model."""
        return self._describe(request, lambda entry: self._models.statistics([entry]))

    def _describe(self, request: Request, describe: Callable[[Entry], Message]) -> Response:
        return self._answer(lambda: JSONResponse(as_json(describe(self._described(request)))))

    def _answer(self, answer: Callable[[], Response]) -> Response:
        try:
            return answer()
        except ServingError as error:
            return _failed(error)

    def _described(self, request: Request, service: Service = Service.MODELS) -> Entry:
        """Returns the model in a path; raises the errors of `Catalog.resolve`, and PermissionDenied."""
        entry = self._entry(request.path_params)
        permit: Permit | None = request.scope.get(PERMIT_KEY)
        if permit is not None:
            permit.check_model(service, entry.name, entry.version)
        return entry

    def _visible(self, request: Request) -> list[Entry]:
        """Returns the models that a request may see."""
        return visible(request.scope, Service.MODELS, self._models.catalog.entries)

    def _entry(self, parameters: dict[str, Any]) -> Entry:
        """Returns the model in a path; raises the errors of `Catalog.resolve`."""
        name = parameters["name"]
        return self._models.catalog.resolve(f"{name}/{parameters['version']}" if "version" in parameters else name)

    def model_of_call(self, call: HttpCall) -> Entry:
        """Returns the model in the path of a call; raises the errors of `Catalog.resolve`."""
        return self._entry(call.scope["path_params"])

    async def infer(self, call: HttpCall, body: bytes, engine: Engine) -> WholeResponse:
        """Predicts the rows of one request; raises the errors of `Engine.predict`."""
        # Late, because few servers get such requests.
        from mlflow_grpc.http.inference_request import InferenceRequest
        from mlflow_grpc.payload.tensors.json_request import JSON_LENGTH_HEADER

        codec = self._models.codec(answering(call, self.model_of_call(call)))
        request = InferenceRequest(codec, body, call.metadata(JSON_LENGTH_HEADER), call)
        call.free_room()
        answer = await engine.predict(request, call.deadline)
        if answer.json_length is None:
            return WholeResponse(answer.content)
        headers = [(JSON_LENGTH_HEADER.encode(), str(answer.json_length).encode())]
        return WholeResponse(answer.content, BINARY, headers=headers)


async def _asks_for_ready(request: Request) -> bool:
    """Returns True if the body of a request for the index asks for the models that are ready.

    Raises:
        ServingError: The body is too large, did not arrive in time, or has another form.

    """
    body = await read_small_body(request)
    try:
        fields = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or not isinstance(fields.get("ready", False), bool):
        raise InvalidPayload('The body must be empty or {"ready": true}.', reason="INVALID_PARAMETER_VALUE")
    return bool(fields.get("ready", False))


def _readiness(subject: dict[str, str], *, is_ready: bool) -> Response:
    return JSONResponse({**subject, "ready": is_ready}, HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE)


def _failed(error: ServingError) -> Response:
    response = error_response(error, "")
    headers = {name.decode(): value.decode() for name, value in response.headers}
    return Response(response.body, response.status, headers, JSON)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    text = f"There is no {scope['path']!r} here. To call a model, POST to {MODEL_PATHS[0]}/infer."
    await WholeResponse.of_json({"error": text}, HTTPStatus.NOT_FOUND).send(send)


class _Route(Route):
    """A route whose refusals have the form of the protocol's errors."""

    @staticmethod
    def of_error(error: ServingError) -> WholeResponse:
        """Returns the response for a caller that may not use the route."""
        return error_response(error, "")

    def __init__(self, path: str, endpoint: Any, method: str = "GET") -> None:
        super().__init__(path, endpoint, methods=[method])

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request with a matching path."""
        methods = sorted(self.methods or ())
        if scope["method"] in methods:
            await self.app(scope, receive, send)
            return
        text = f"{self.path} takes {' and '.join(methods)}, not {scope['method']}."
        response = WholeResponse.of_json({"error": text}, HTTPStatus.METHOD_NOT_ALLOWED)
        response.headers.append((b"allow", ", ".join(methods).encode()))
        await response.send(send)
