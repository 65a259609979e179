"""The way through Ray Serve's wrapper: its descriptions of the RPCs, and the replica's methods that it calls.

The wrapper keeps answers and statuses. It loses deadlines and the trailers of streams, and clients do not retry what it
refuses, because it sends headers before the status. It finds a method by the last part of its path alone.

Rule of this module: it imports no MLflow, because proxies import it.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import grpc
from _mlflow_grpc_protocol.typed_terms import RpcKind
from ray.serve.grpc_util import RayServegRPCContext

from mlflow_grpc.contract.fields import PACKAGE
from mlflow_grpc.contract.messages import SERVICE
from mlflow_grpc.services.in_process import CallError, InProcessCaller

UNARY, ANSWERS, STREAM = "unary_unary", "unary_stream", "stream_stream"
"""Forms of an RPC: a message for a message, several for a message, several for several."""

METHODS = {
    "MLflow": {"predict": UNARY},
    "MLflowStream": {"predict_stream": ANSWERS, "predict_many": STREAM},
    "arrow.flight.protocol.FlightService": {
        "Handshake": STREAM,
        "ListFlights": ANSWERS,
        "GetFlightInfo": UNARY,
        "PollFlightInfo": UNARY,
        "GetSchema": UNARY,
        "DoGet": ANSWERS,
        "DoPut": STREAM,
        "DoExchange": STREAM,
        "DoAction": ANSWERS,
        "ListActions": ANSWERS,
    },
    "mlflow_grpc.v1.Models": {"ListModels": UNARY, "GetModel": UNARY},
    "grpc.health.v1.Health": {"Check": UNARY, "List": UNARY, "Watch": ANSWERS},
    "inference.GRPCInferenceService": {
        **dict.fromkeys(("ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata"), UNARY),
        **dict.fromkeys(("ModelInfer", "ModelConfig", "ModelStatistics"), UNARY),
        **dict.fromkeys(("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"), UNARY),
        **{
            f"{memory}SharedMemory{action}": UNARY
            for memory in ("System", "Cuda")
            for action in ("Status", "Register", "Unregister")
        },
        **dict.fromkeys(("TraceSetting", "LogSettings"), UNARY),
        "ModelStreamInfer": STREAM,
    },
    # Not v1alpha, whose method has the same name.
    "grpc.reflection.v1.ServerReflection": {"ServerReflectionInfo": STREAM},
}
"""Forms of the RPCs that do not depend on a model, by service and method."""

_TYPED = f"/{PACKAGE}.{SERVICE}/"
_TYPED_FORMS = {
    "get_models": UNARY,
    f"_{RpcKind.ONE}": UNARY,
    f"_{RpcKind.BATCH}": UNARY,
    f"_{RpcKind.MANY}": STREAM,
    f"_{RpcKind.STREAM}": ANSWERS,
}
"""Forms of typed RPCs by the end of their names."""


def handler(form: str) -> Any:
    """Makes a handler without serializers. Ray Serve replaces its function, which is never called."""
    return getattr(grpc, f"{form}_rpc_method_handler")(lambda *_: b"")


def typed_form(name: str) -> str | None:
    """Returns the form of a typed RPC; None if no typed RPC has such a name."""
    return next((form for end, form in _TYPED_FORMS.items() if name.endswith(end)), None)


class TypedMethods(grpc.GenericRpcHandler):
    """Typed RPCs of models that the process does not know, for a proxy."""

    def __init__(self, server: Any) -> None:
        """Takes the server of Ray Serve, which puts its wrapper into a handler."""
        self._server = server
        self._handlers: dict[str, Any] = {}
        self._method_handlers: dict[str, Any] = {}  # Ray Serve reads these once; none are known by then.

    def service(self, handler_call_details: Any) -> Any:
        """Returns the handler of a method; gRPC calls this for each call."""
        path: str = handler_call_details.method
        form = typed_form(path.removeprefix(_TYPED)) if path.startswith(_TYPED) else None
        if form is None:
            return None
        return self._server._override_method_handler(path, handler(form))  # noqa: SLF001 - see `registration`


class Message:
    """A serialized message, in the form in which Ray Serve takes answers."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:  # noqa: N802 - the name of protobuf's method
        """Returns the bytes."""
        return self._data


class WrappedCalls:
    """Methods that Ray Serve's wrapper calls."""

    def __init__(self, caller: InProcessCaller) -> None:
        """Takes what calls the handlers."""
        self._caller = caller

    def method(self, name: str) -> Callable[..., Any] | None:
        """Returns the method for RPCs of a name; None if there are none."""
        for service, methods in METHODS.items():
            if name in methods:
                return self._method(f"/{service}/{name}", methods[name])
        form = typed_form(name)
        return None if form is None else self._method(f"{_TYPED}{name}", form)

    def _method(self, path: str, form: str) -> Callable[..., Any]:
        caller = self._caller

        async def unary(request: bytes, grpc_context: RayServegRPCContext) -> Message:
            try:
                response = await caller.unary(path, request, metadata=grpc_context.invocation_metadata())
            except CallError as error:
                _set_status(grpc_context, error)
                return Message(b"")
            grpc_context.set_trailing_metadata(list(response.trailers))
            return Message(response.message)

        async def stream(
            request: bytes | AsyncIterator[bytes], grpc_context: RayServegRPCContext
        ) -> AsyncGenerator[Message]:
            try:
                responses = caller.stream(path, request, metadata=grpc_context.invocation_metadata())
                try:
                    async for message in responses:
                        yield Message(message)
                finally:
                    responses.cancel()
            except CallError as error:
                _set_status(grpc_context, error)
                # The status goes to the caller with a message or an exception; no message follows.
                raise RuntimeError(str(error)) from None

        return unary if form == UNARY else stream


def _set_status(context: RayServegRPCContext, error: CallError) -> None:
    context.set_code(error.code)
    context.set_details(error.details)
    context.set_trailing_metadata(list(error.trailers))
