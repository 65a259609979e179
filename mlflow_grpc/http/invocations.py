"""The route /invocations of `mlflow models serve`, which calls a model. Each model has its own /invocations too.

Source: `mlflow.pyfunc.scoring_server.invocations`.
"""

from _mlflow_grpc_protocol.metadata import MODEL_KEY
from starlette.routing import BaseRoute, Route

from mlflow_grpc.engine.catalog import Catalog, Entry
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.requests import TextRequest
from mlflow_grpc.errors import UnsupportedContentType
from mlflow_grpc.http.dispatch import HttpDispatcher
from mlflow_grpc.http.event_stream import EventStream
from mlflow_grpc.http.http_call import HttpCall
from mlflow_grpc.http.response import EVENT_STREAM, JSON, WholeResponse

PARQUET = "application/vnd.apache.parquet"

TYPES = ["text/csv", JSON, PARQUET]
"""Media types of payloads."""


async def invoke(call: HttpCall, body: bytes, engine: Engine) -> WholeResponse | EventStream:
    """Answers one payload; raises the errors of `Engine.predict`."""
    content_type = call.metadata("content-type")
    payload = _payload(body, content_type)
    request = TextRequest(payload, content_type, call)
    try:
        wants_events = await _wants_events(call, payload, engine)
        call.free_room()
        if wants_events:
            return await EventStream.start(engine.predict_stream(request, call.deadline))
        return WholeResponse((await engine.predict(request, call.deadline)).encode(), engine.model.codec.media_type)
    except UnsupportedContentType:
        raise _unsupported(content_type) from None


def routes(dispatcher: HttpDispatcher, catalog: Catalog) -> list[BaseRoute]:
    """Returns the routes.

    Args:
        dispatcher: Creates the endpoints.
        catalog: The models.

    """

    def model_from_header(call: HttpCall) -> Entry:
        return catalog.resolve(call.metadata(MODEL_KEY))

    def model_from_path(call: HttpCall) -> Entry:
        parameters = call.scope["path_params"]
        label = parameters["name"]
        return catalog.resolve(f"{label}/{parameters['version']}" if "version" in parameters else label)

    of_header = dispatcher.model_endpoint(invoke, model_from_header)
    of_path = dispatcher.model_endpoint(invoke, model_from_path)
    return [
        Route("/invocations", of_header, methods=["POST"]),
        Route("/models/{name}/invocations", of_path, methods=["POST"]),
        Route("/models/{name}/versions/{version}/invocations", of_path, methods=["POST"]),
    ]


def _payload(body: bytes, content_type: str | None) -> str | bytes:
    """Returns the body as text if it is UTF-8; Parquet, and JSON in another encoding, stay bytes."""
    if content_type is not None and content_type.startswith(PARQUET):
        return body
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body


async def _wants_events(call: HttpCall, payload: str | bytes, engine: Engine) -> bool:
    """Returns True if the caller requests a stream, with its Accept header or with `stream` in the payload.

    A payload with `stream` gets the whole answer from a model that does not stream, as from MLflow's server.
    """
    model = engine.model
    accept = call.metadata("accept")
    if accept is not None and EVENT_STREAM in accept and (model.model.streams or not _accepts_json(accept)):
        return True
    return await engine.asks_for_stream(payload, call.deadline)


def _accepts_json(accept: str) -> bool:
    return any(name in accept for name in ("application/json", "application/*", "*/*"))


def _unsupported(content_type: str | None) -> UnsupportedContentType:
    """Returns the error for a content type that the model's codec does not accept."""
    return UnsupportedContentType(
        "This predictor only supports the following content types: "
        f"Types: {TYPES}. Got {content_type!r}. Set the header content-type to one of them, with no parameter but "
        "charset=utf-8."
    )
