"""The route /invocations of `mlflow models serve`, which calls a model. Each model has its own /invocations too.

Source: `mlflow.pyfunc.scoring_server.invocations`.
"""

import json
from functools import partial
from typing import Any

from _mlflow_grpc_protocol.metadata import MODEL_KEY
from starlette.routing import BaseRoute

from mlflow_grpc.engine import tables
from mlflow_grpc.engine.catalog import Catalog, Entry
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.requests import TableRequest, TableTextRequest, TextRequest
from mlflow_grpc.errors import InvalidPayload, UnsupportedContentType
from mlflow_grpc.http.dispatch import HttpDispatcher
from mlflow_grpc.http.event_stream import EventStream
from mlflow_grpc.http.http_call import HttpCall
from mlflow_grpc.http.response import EVENT_STREAM, JSON, WholeResponse, accepted_media_types, media_type_of
from mlflow_grpc.http.route import JsonRoute

PARQUET = "application/vnd.apache.parquet"
ARROW = "application/vnd.apache.arrow.stream"

PARAMS_KEY = "mlflow-params"
"""Header with the params of a call whose body is a table, as a JSON object."""

_EXAMPLE = '{"inputs": [1.5], "params": {"top_k": 3}}'

JSON_RANGES = (JSON, "application/*", "*/*")
"""Media types in a header `accept` that include JSON."""


async def invoke(call: HttpCall, body: bytes, engine: Engine, *, max_bytes: int) -> WholeResponse | EventStream:
    """Answers one payload; raises the errors of `Engine.predict`.

    Args:
        call: The call.
        body: The payload.
        engine: Runs the model.
        max_bytes: Maximum size of a request, in bytes.

    """
    content_type = call.metadata("content-type")
    if content_type is not None and media_type_of(content_type).strip() == ARROW:
        return await _invoke_table(call, body, engine, max_bytes)
    if call.metadata(PARAMS_KEY) is not None:
        raise InvalidPayload(
            f"The header {PARAMS_KEY} is for tables of Arrow. Put params into the payload: {_EXAMPLE}."
        )
    payload = _payload(body, content_type)
    request = TextRequest(payload, content_type, call)
    try:
        wants_events = await _wants_events(call, payload, engine)
        call.free_room()
        if wants_events:
            return await EventStream.start(engine.predict_stream(request, call.deadline))
        return WholeResponse((await engine.predict(request, call.deadline)).encode(), engine.model.codec.media_type)
    except UnsupportedContentType as error:
        error.message = _unsupported(error, content_type or "")
        error.logged = f"The header content-type must be one of {', '.join(error.supported)}."
        raise


async def _invoke_table(call: HttpCall, body: bytes, engine: Engine, max_bytes: int) -> WholeResponse:
    """Answers a stream of Arrow record batches, with such a stream if the caller accepts it, or with JSON."""
    params = _params(call.metadata(PARAMS_KEY))
    model = await tables.table_model(engine.model, max_bytes)
    reader, rows = await tables.read(partial(model.read_stream, body, max_bytes, params), len(body))
    call.free_room()
    if ARROW in accepted_media_types(call.metadata("accept") or ""):
        answer = await engine.predict(TableRequest(rows, reader, model.writer, call), call.deadline)
        return WholeResponse(answer.stream(), ARROW)
    text = await engine.predict(TableTextRequest(rows, reader, model.writer, call), call.deadline)
    return WholeResponse(text.encode(), engine.model.codec.media_type)


def _params(text: str | None) -> dict[str, Any] | None:
    """Returns the params in a header; raises InvalidPayload if it is not a JSON object."""
    if text is None:
        return None
    try:
        params = json.loads(text)
    except (ValueError, RecursionError):
        params = None
    if not isinstance(params, dict):
        raise InvalidPayload(f'The header {PARAMS_KEY} must be a JSON object like {{"top_k": 3}}.')
    return params


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

    handler = partial(invoke, max_bytes=dispatcher.max_bytes)
    of_header = dispatcher.model_endpoint(handler, model_from_header)
    of_path = dispatcher.model_endpoint(handler, model_from_path)
    return [
        JsonRoute("/invocations", of_header, methods=["POST"]),
        JsonRoute("/models/{name}/invocations", of_path, methods=["POST"]),
        JsonRoute("/models/{name}/versions/{version}/invocations", of_path, methods=["POST"]),
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
    if accept is not None and EVENT_STREAM in accept.lower():
        accepted = accepted_media_types(accept)
        if EVENT_STREAM in accepted and (model.model.streams or accepted.isdisjoint(JSON_RANGES)):
            return True
    return await engine.asks_for_stream(payload, call.deadline)


def _unsupported(error: UnsupportedContentType, content_type: str) -> str:
    """Returns the message for a content type that the model's codec does not accept; it begins as MLflow's does."""
    media_type, _, parameters = (part.strip() for part in content_type.partition(";"))
    if media_type not in error.supported:
        message = (
            f"This predictor only supports the following content types: Types: {list(error.supported)}. "
            f"Got {content_type!r}. Set the header content-type to one of them."
        )
    elif parameters.lower().startswith("charset"):
        message = (
            f"The scoring server only supports UTF-8. Got {parameters!r}; leave it out of the header content-type."
        )
    else:
        message = f"Unrecognized content type parameters: {parameters!r}. Leave them out of the header content-type."
    return f"{message} {error.advice}".strip()
