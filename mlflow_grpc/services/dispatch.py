"""Dispatch of every RPC of this server: admission, parsing, error answers, request ids and the log line.

Rule of this module: gRPC never answers by itself. `grpc.aio` answers UNKNOWN, with the exception's text, to a message
that does not parse, to any exception that leaves a handler and to a response that does not serialize. So handlers are
registered without serializers; bytes are parsed and every exception is translated here.

It has more than 300 lines, because calls of models, calls of no model and calls that find their model in a message take
the same way.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from _mlflow_grpc_protocol.metadata import REQUEST_ID_KEY
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from mlflow_grpc.access.gate import Gate
from mlflow_grpc.calls import server_timing
from mlflow_grpc.calls.challengers import answering
from mlflow_grpc.calls.ignored_columns import MAX_BYTES_OF_ERROR
from mlflow_grpc.calls.open_calls import OpenCalls
from mlflow_grpc.engine.catalog import Entry
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.protos import message_class
from mlflow_grpc.services import status
from mlflow_grpc.services.grpc_call import GrpcCall, RequestClass
from mlflow_grpc.services.guard import Admit, call_model, guarded
from mlflow_grpc.services.handshakes import Handshakes
from mlflow_grpc.services.refusal_pause import RefusalPause
from mlflow_grpc.services.status import Trailers
from mlflow_grpc.services.unknown_methods import UnknownMethods
from mlflow_grpc.settings import Settings
from mlflow_grpc.telemetry.calls import GrpcMethod
from mlflow_grpc.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from mlflow_grpc.services.grpc_call import RpcContext

    # Generic in the type stubs only.
    Handler = grpc.RpcMethodHandler[bytes, bytes]
    Handlers = grpc.GenericRpcHandler

CHECK_INTERVAL_S = 1.0
"""Time between two looks for requests and handshakes that do not arrive, in seconds."""

UNTRACED = ("/grpc.health.", "/grpc.reflection.")
"""Beginnings of the paths whose calls get no trace: those of probes and tools, which would hide the others."""

RpcMethod = Callable[[Any, GrpcCall], Awaitable[Message | None]]
"""Takes the request, or an iterator of requests, and the call. Returns the response, or None if it wrote a stream. The
iterator raises InvalidMessage for a message that does not parse, and goes on after it.
"""

ModelRpcMethod = Callable[[Any, GrpcCall, Engine], Awaitable[Message | None]]
"""Takes what an RpcMethod takes, and the engine of the model that is called."""

AdmittedRpcMethod = Callable[[Any, GrpcCall, Any], Awaitable[Message | None]]
"""Takes what an RpcMethod takes, and what the Admit of the method returned on entry."""

ResolveModel = Callable[[GrpcCall], Entry]
"""Returns the model that a call is for; raises a ServingError if there is none."""


class RpcDispatcher:
    """Makes gRPC handlers from the methods of servicers."""

    def __init__(
        self, open_calls: OpenCalls, settings: Settings, metrics: Metrics | None = None, gate: Gate | None = None
    ) -> None:
        """Makes no handlers yet.

        Args:
            open_calls: Where calls are registered.
            settings: Whether errors show what the model raised, and whether all callers get the times of their calls.
            metrics: Where calls are counted; None if nowhere.
            gate: Recognizes callers; None if every caller may call.

        """
        self._gate = gate
        self.has_gate = gate is not None
        """True if callers have to be recognized."""
        self.handshakes = Handshakes()
        self._refusal_pause = RefusalPause()
        self._open_calls = open_calls
        self._shows_exceptions = settings.show_exceptions
        self._has_server_timing = settings.server_timing
        self.backend_metrics: tuple[tuple[str, bytes], ...] = ()
        """Trailers that report the load of the server to load balancers; empty if they are turned off."""
        self._metrics = metrics

    def service_handlers(
        self,
        service: ServiceDescriptor,
        methods: Mapping[str, RpcMethod],
        *,
        path: str | None = None,
    ) -> "Handlers":
        """Makes the handlers of a service that calls no model.

        Args:
            service: Its descriptor; requests come in the classes of its pool.
            methods: What answers each method, by the method's name.
            path: Full name of the service on the wire, if it differs from the descriptor's.

        """
        name = path or service.full_name
        return grpc.method_handlers_generic_handler(
            name,
            {
                method.name: self.handler(f"/{name}/{method.name}", method, methods[method.name])
                for method in service.methods
            },
        )

    def model_service_handlers(
        self, service: ServiceDescriptor, methods: Mapping[str, ModelRpcMethod], resolve: ResolveModel
    ) -> "Handlers":
        """Makes the handlers of a service whose methods call models.

        Args:
            service: Its descriptor; requests come in the classes of its pool.
            methods: What answers each method, by the method's name.
            resolve: Which model a call is for.

        """
        name = service.full_name
        return grpc.method_handlers_generic_handler(
            name,
            {
                method.name: self.model_handler(f"/{name}/{method.name}", method, methods[method.name], resolve)
                for method in service.methods
            },
        )

    def handler(
        self,
        path: str,
        method: MethodDescriptor,
        rpc_method: RpcMethod,
        level: int = logging.DEBUG,
        request_class: RequestClass | None = None,
    ) -> "Handler":
        """Makes the handler of a method that calls no model, or finds it in its first message.

        Args:
            path: Path of the method on the wire.
            method: Its descriptor.
            rpc_method: What answers it.
            level: Level at which its calls are logged.
            request_class: Reads its requests; by default the class of the descriptor.

        """
        unadmitted: AbstractContextManager[None] = nullcontext()
        return self.admitting_handler(
            path,
            method,
            lambda request, call, _: rpc_method(request, call),
            lambda _: unadmitted,
            level,
            request_class=request_class,
        )

    def reserve_metrics(self, path: str) -> None:
        """Reserves room for the metrics of a method whose handler is made later, at any time."""
        if self._metrics is not None:
            self._metrics.grpc_method(path)

    def unknown_methods(self) -> "Handlers":
        """Makes the last handler, which counts calls of methods that the server does not have, and answers none."""
        return UnknownMethods(None if self._metrics is None else self._metrics.unknown_method())

    def model_handler(
        self,
        path: str,
        method: MethodDescriptor,
        rpc_method: ModelRpcMethod,
        resolve: ResolveModel,
        method_metrics: GrpcMethod | None = None,
    ) -> "Handler":
        """Makes the handler of a method that calls a model; its calls are logged at level INFO.

        The requests of a client stream are admitted one by one, when they come (`Engine.submit`).

        Args:
            path: Path of the method on the wire.
            method: Its descriptor.
            rpc_method: What answers it.
            resolve: Which model a call is for.
            method_metrics: Where its calls are counted; by default where those of its path are.

        """
        client_streaming = method.client_streaming

        def admit(call: GrpcCall) -> AbstractContextManager[Engine]:
            entry = resolve(call)
            call_model(call, entry)
            entry = answering(call, entry)
            if client_streaming:
                return entry.engine.open_stream()
            return entry.engine.open_call(call.time_remaining)

        return self.admitting_handler(path, method, rpc_method, admit, logging.INFO, method_metrics)

    def admitting_handler(
        self,
        path: str,
        method: MethodDescriptor,
        rpc_method: AdmittedRpcMethod,
        admit: Admit,
        level: int = logging.INFO,
        method_metrics: GrpcMethod | None = None,
        request_class: RequestClass | None = None,
    ) -> "Handler":
        """Makes the handler of a method with an admission of its own, for requests that name their models themselves.

        Args:
            path: Path of the method on the wire.
            method: Its descriptor.
            rpc_method: What answers it.
            admit: Admits its calls.
            level: Level of the log lines of its calls.
            method_metrics: As in `model_handler`.
            request_class: As in `handler`.

        """
        admit = guarded(self._gate, path, admit)
        reader: RequestClass = request_class or message_class(method.input_type)
        client_streaming, server_streaming = method.client_streaming, method.server_streaming
        is_traced = not path.startswith(UNTRACED)
        if method_metrics is None and self._metrics is not None:
            method_metrics = self._metrics.grpc_method(path)
        if method_metrics is not None:
            method_metrics.rename(path, client_streaming=client_streaming, server_streaming=server_streaming)

        async def handle(messages: AsyncIterator[bytes], rpc_context: "RpcContext") -> bytes | None:
            call = GrpcCall(path, rpc_context, shows_exceptions=self._shows_exceptions)
            call.method_metrics = method_metrics
            response = None
            task: Any = asyncio.current_task()
            self._open_calls.add(task, call, is_traced=is_traced)
            if self.handshakes.pending:
                self.handshakes.call_received(call.peer())
            try:
                try:
                    with admit(call) as engine:
                        if client_streaming:
                            call.is_read = True
                            request: object = _Requests(reader, messages, call)
                        else:
                            data = await rpc_context.read()
                            call.is_read = True
                            request = call.parse(reader, data)
                        message = await rpc_method(request, call, engine)
                        if message is not None:
                            response = message.SerializeToString()
                            if engine is not None:
                                engine.reserve_response(len(response), task)
                            call.count_response(response)
                finally:
                    self._open_calls.remove(task)
            except BaseException as error:  # noqa: BLE001 - every failed call ends there
                await self._fail(call, rpc_context, error)
            rpc_context.set_trailing_metadata(
                ((REQUEST_ID_KEY, call.request_id), *call.ignored.trailers(), *self._trailers(call))
            )
            self._open_calls.answered(call, level)
            return response

        # Registered as if every method took a stream, which is the same on the wire: if `grpc.aio` expects exactly
        # one message, it never answers a call that ends without any.
        if server_streaming:
            return grpc.stream_stream_rpc_method_handler(handle)
        return grpc.stream_unary_rpc_method_handler(handle)

    async def _fail(self, call: GrpcCall, rpc_context: "RpcContext", error: BaseException) -> NoReturn:
        """Answers with an error status."""
        # gRPC's InternalError: nothing can be sent any more, since the caller has left.
        is_cancelled = isinstance(error, asyncio.CancelledError | grpc.aio.InternalError)
        serving_error = self._open_calls.failed(call, error, is_cancelled=is_cancelled)
        if serving_error is None:
            raise error
        code, message, trailers = status.of_error(serving_error, request_id=call.request_id, model=call.model)
        more = self._trailers(call)
        if serving_error.is_frequent:
            await self._refusal_pause.wait()
        await rpc_context.abort(code, message, (*trailers, *call.ignored.trailers(MAX_BYTES_OF_ERROR), *more))

    def _trailers(self, call: GrpcCall) -> Trailers:
        """Returns the trailers that answers and errors share: version, times and load."""
        timing = server_timing.trailers(call, always=self._has_server_timing)
        return (*call.version_trailers, *timing, *self.backend_metrics)

    async def watch_connections(self, timeout_s: float) -> None:
        """Ends calls whose requests do not arrive, and reports TLS handshakes that fail; runs until cancelled.

        Args:
            timeout_s: Time limit of a call, in seconds.

        """
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            now = time.monotonic()
            self.handshakes.report(now)
            self._open_calls.cancel_overdue(now, timeout_s)


class _Requests(AsyncIterator[object]):
    """The requests of a client stream, parsed."""

    def __init__(self, request_class: RequestClass, messages: AsyncIterator[bytes], call: GrpcCall) -> None:
        self._request_class = request_class
        # Not `aiter(messages)`: gRPC's generator warns if a call ends before its first request is read.
        self._messages = messages
        self._call = call

    async def __anext__(self) -> object:
        return self._call.parse(self._request_class, await anext(self._messages))
