"""Dispatch of every HTTP request that calls a model: admission, reading, error responses, request ids, the log line.

Rule of this module: every call gets its answer here, even if it fails; no exception reaches the HTTP server.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

from _mlflow_grpc_protocol.metadata import REQUEST_ID_KEY
from starlette.types import Receive, Scope, Send

from mlflow_grpc.access.gate import Gate
from mlflow_grpc.calls import server_timing
from mlflow_grpc.calls.challengers import answering
from mlflow_grpc.calls.open_calls import OpenCalls
from mlflow_grpc.choices import Service
from mlflow_grpc.engine.catalog import Entry
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.errors import ServingError
from mlflow_grpc.http import event_stream
from mlflow_grpc.http.arriving_bodies import ArrivingBodies
from mlflow_grpc.http.errors import of_error
from mlflow_grpc.http.event_stream import EventStream
from mlflow_grpc.http.guard import permit_of
from mlflow_grpc.http.http_call import HttpCall
from mlflow_grpc.http.response import CLOSE, EVENT_STREAM, Headers, WholeResponse

LINGER_S, LINGER_BODIES = 1.0, 2
"""Maximum time to read the rest of a request whose response has been sent, in seconds, and its maximum size, as a
multiple of the largest body that the server takes."""

LOOK_AFTER_S = 0.1
"""Time after which the server checks whether the caller of an unanswered call has left, in seconds. Most calls are
answered earlier."""


ModelHandler = Callable[[HttpCall, bytes, Engine], Awaitable[WholeResponse | EventStream]]
"""Takes the call, its body and the engine of the called model. Returns the response."""

ResolveModel = Callable[[HttpCall], Entry]
"""Returns the model for a call; raises a ServingError if there is none."""

ErrorResponse = Callable[[ServingError, str], WholeResponse]
"""Returns the response for an error and a request id."""


class HttpDispatcher:
    """Creates ASGI endpoints from functions that answer one call."""

    def __init__(
        self,
        open_calls: OpenCalls,
        *,
        max_bytes: int,
        max_arriving_bytes: int,
        shows_exceptions: bool,
        has_server_timing: bool = False,
        gate: Gate | None = None,
    ) -> None:
        """Starts without endpoints.

        Args:
            open_calls: Registry of the calls.
            max_bytes: Maximum size of a body.
            max_arriving_bytes: Maximum size of all incomplete bodies together.
            shows_exceptions: True if errors show callers what the model raised.
            has_server_timing: True if all callers get the times of their calls.
            gate: Recognizes callers; None if every caller may call.

        """
        self.gate = gate
        self.has_server_timing = has_server_timing
        self.open_calls = open_calls
        self.max_bytes = max_bytes
        self.arriving = ArrivingBodies(max_arriving_bytes)
        self.shows_exceptions = shows_exceptions
        self.is_closing = False
        """True once each response closes its connection, so that callers go to another server."""

    def model_endpoint(
        self, handler: ModelHandler, resolve: ResolveModel, error_response: ErrorResponse = of_error
    ) -> "ModelEndpoint":
        """Returns the endpoint of a route that calls a model; its calls are logged at level INFO.

        Args:
            handler: Answers a call.
            resolve: Returns the model for a call.
            error_response: Returns the response for an error.

        """
        return ModelEndpoint(self, handler, resolve, error_response)


class ModelEndpoint:
    """ASGI application that answers the calls of one route."""

    def __init__(
        self, dispatcher: HttpDispatcher, handler: ModelHandler, resolve: ResolveModel, error_response: ErrorResponse
    ) -> None:
        self._dispatcher = dispatcher
        self._open_calls = dispatcher.open_calls
        self._handler = handler
        self._resolve = resolve
        self._error_response = error_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one call."""
        call = HttpCall(
            scope, receive, error_status=self._error_status, shows_exceptions=self._dispatcher.shows_exceptions
        )
        task: Any = asyncio.current_task()
        self._open_calls.add(task, call)
        error: ServingError | None = None
        try:
            try:
                response = await self._answer(call, task, send)
            finally:
                self._open_calls.remove(task)
        except BaseException as raised:  # noqa: BLE001 - `failed` ends every failed call
            error = self._open_calls.failed(call, raised, is_cancelled=isinstance(raised, asyncio.CancelledError))
            if error is None:
                return
            response = None if call.status is not None else self._error_response(error, call.request_id)
        else:
            if response is not None:
                call.response_bytes, call.status = len(response.body), response.status
            self._open_calls.answered(call, logging.INFO)
        if response is None:
            last = b"" if error is None else EventStream.error(error)
            await send({"type": "http.response.body", "body": last + event_stream.DONE})
        else:
            await self._send(call, response, send)

    async def _answer(self, call: HttpCall, task: "asyncio.Task[Any]", send: Send) -> WholeResponse | None:
        """Returns the response; None if it is a stream of events, which has been sent except for its end."""
        gate = self._dispatcher.gate
        if gate is not None:
            call.permit = permit_of(gate, Service.PREDICT, call.scope)
        call.start()
        entry = self._resolve(call)
        call.model = entry.name
        if call.permit is not None:
            call.permit.check_model(Service.PREDICT, entry.name, entry.version)
        call.names_version = "version" in call.scope.get("path_params", ())
        answering(call, entry).engine.check()
        with self._dispatcher.arriving.reading() as room:
            # The body is read before the call is opened, so that half a request takes no room from other calls.
            body = await call.read(self._dispatcher.max_bytes, room)
            entry = self._resolve(call)  # Another version may have replaced it while the body arrived.
            call.version_trailers = entry.version_trailers
            entry = answering(call, entry)
            with entry.engine.open_call(call.time_remaining) as engine:
                with _CancelWhenLeft(call, task):
                    response = await self._handler(call, body, engine)
                    if isinstance(response, EventStream):
                        await self._send_events(call, response, send)
                        return None
                engine.reserve_response(len(response.body), task)
                return response

    async def _send(self, call: HttpCall, response: WholeResponse, send: Send) -> None:
        """Sends a response. If the body of the request was not read, the connection is closed after it.

        If the connection stayed open, the rest of the body would have to be read, whatever its size. If it were closed
        at once, the kernel would reset it because of the unread bytes, and the caller might lose the response. The
        server therefore reads on for a moment, as nginx does (`lingering_close`).
        """
        response.headers += self._headers(call)
        if call.is_read:
            await response.send(send)
            return
        await response.send(send, is_complete=False)
        await call.discard_body(max_bytes=LINGER_BODIES * self._dispatcher.max_bytes, timeout_s=LINGER_S)
        await send({"type": "http.response.body", "body": b""})

    def _error_status(self, error: ServingError) -> int:
        return self._error_response(error, "").status

    def _headers(self, call: HttpCall) -> Headers:
        headers = [(REQUEST_ID_KEY.encode(), call.request_id.encode())]
        timing = server_timing.trailers(call, always=self._dispatcher.has_server_timing)
        trailers = (*call.version_trailers, *call.ignored.trailers(), *timing)
        headers += [(name.encode(), value.encode()) for name, value in trailers]
        if not call.is_read:
            headers.append(CLOSE)
        return headers

    async def _send_events(self, call: HttpCall, stream: EventStream, send: Send) -> None:
        """Sends the chunks of an answer as the model produces them; raises their errors."""
        headers = [
            (b"content-type", f"{EVENT_STREAM}; charset=utf-8".encode()),
            (b"cache-control", b"no-store"),
            *self._headers(call),
        ]
        call.status = HTTPStatus.OK
        await send({"type": "http.response.start", "status": call.status, "headers": headers})
        async with aclosing(stream.events()) as events:
            async for event in events:
                call.response_bytes += len(event)
                await send({"type": "http.response.body", "body": event, "more_body": True})


class _CancelWhenLeft:
    """Context manager that cancels a call's task once its caller has left."""

    __slots__ = ("_call", "_handle", "_is_over", "_task", "_watch")

    def __init__(self, call: HttpCall, task: "asyncio.Task[Any]") -> None:
        self._call, self._task = call, task
        self._watch: asyncio.Task[None] | None = None
        self._is_over = False

    def __enter__(self) -> None:
        self._handle = asyncio.get_running_loop().call_later(LOOK_AFTER_S, self._look)

    def _look(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._call.wait_until_left())
        self._watch.add_done_callback(self._stop)

    def _stop(self, watch: "asyncio.Task[None]") -> None:
        if not watch.cancelled() and not self._is_over:
            self._task.cancel()

    def __exit__(self, *_: object) -> None:
        self._is_over = True  # `_stop` may be scheduled already.
        self._handle.cancel()
        if self._watch is not None:
            self._watch.cancel()
