"""Service inference.GRPCInferenceService: the Open Inference Protocol, version 2, with Triton's extensions.

Source: https://github.com/kserve/open-inference-protocol and Triton's grpc_service.proto. Field numbers and messages of
streams are those that tritonclient, KServe and perf_analyzer use.

Rule of this module: it unpacks, names the model, hands over and packs. `mlflow_grpc.payload.tensors` converts.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn, cast

import grpc
from google.protobuf.message import Message

from mlflow_grpc import protos
from mlflow_grpc.calls.challengers import answering
from mlflow_grpc.calls.inference_models import InferenceModels
from mlflow_grpc.engine.catalog import Entry, State
from mlflow_grpc.engine.requests import TensorsRequest
from mlflow_grpc.errors import ModelNotNamed, PermissionDenied, ServingError, Unsupported
from mlflow_grpc.services.dispatch import RpcDispatcher
from mlflow_grpc.services.grpc_call import GrpcCall
from mlflow_grpc.services.guard import check_model, visible
from mlflow_grpc.services.named_models import Arrival, NamedModels
from mlflow_grpc.services.streams import answer_in_order

if TYPE_CHECKING:
    from mlflow_grpc.protos.open_inference import grpc_service_pb2 as pb
    from mlflow_grpc.services.dispatch import Handlers

NAME = "inference.GRPCInferenceService"

NOT_IMPLEMENTED = {
    "SharedMemory": "This server has no shared memory. Send tensors in raw_input_contents, and read them from "
    "raw_output_contents.",
    "TraceSetting": "Traces are set by the server's flags, such as --otlp-endpoint, and not by its callers.",
    "LogSettings": "The log is set by the server's flags, such as --log-level, and not by its callers.",
    "RepositoryModelUnload": "The models of this server come from its configuration. Take the model out of it, and "
    "restart the server.",
}
"""Why methods are not implemented, by a part of their names."""


_Response: "type[pb.ModelInferResponse]" = protos.message_named("inference.ModelInferResponse")
_StreamResponse: "type[pb.ModelStreamInferResponse]" = protos.message_named("inference.ModelStreamInferResponse")
_Live: "type[pb.ServerLiveResponse]" = protos.message_named("inference.ServerLiveResponse")
_Ready: "type[pb.ServerReadyResponse]" = protos.message_named("inference.ServerReadyResponse")
_ModelReady: "type[pb.ModelReadyResponse]" = protos.message_named("inference.ModelReadyResponse")
_Loaded: "type[pb.RepositoryModelLoadResponse]" = protos.message_named("inference.RepositoryModelLoadResponse")


class OpenInferenceServicer:
    """Answers the calls of the protocol for the models of a catalog."""

    def __init__(
        self, described: InferenceModels, models: NamedModels, reload: Callable[[Entry], Awaitable[None]]
    ) -> None:
        """Takes the models.

        Args:
            described: Describes the models.
            models: Finds the models of requests.
            reload: Reloads a model, and returns once it is served.

        """
        self._described = described
        self._reload = reload
        self._models = models
        self._catalog = described.catalog
        self.reader = described.reader
        """Parses the requests of ModelInfer."""

    async def ServerLive(self, request: "pb.ServerLiveRequest", call: GrpcCall) -> Message:
        """Returns True, because a server that is not live cannot."""
        return _Live(live=True)

    async def ServerReady(self, request: "pb.ServerReadyRequest", call: GrpcCall) -> Message:
        """Returns True while the health of the server is SERVING."""
        return _Ready(ready=self._described.is_serving())

    async def ModelReady(self, request: "pb.ModelReadyRequest", call: GrpcCall) -> Message:
        """Returns True while the health of a model is SERVING; False for an unknown model, as Triton does.

        Raises:
            PermissionDenied: The caller may not see the model.

        """
        try:
            entry = self._models.resolve(request.name, request.version, call)
        except PermissionDenied:
            raise
        except ServingError:
            is_ready = False
        else:
            is_ready = self._described.is_ready(entry)
        return _ModelReady(ready=is_ready)

    async def ServerMetadata(self, request: "pb.ServerMetadataRequest", call: GrpcCall) -> Message:
        """Returns name, version and extensions."""
        return self._described.server_metadata()

    async def ModelMetadata(self, request: "pb.ModelMetadataRequest", call: GrpcCall) -> Message:
        """Describes the inputs and outputs of a model; raises the errors of `Catalog.resolve`."""
        entry = self._models.resolve(request.name, request.version, call)
        return self._described.metadata(entry, visible(call, self._catalog.entries))

    async def ModelConfig(self, request: "pb.ModelConfigRequest", call: GrpcCall) -> Message:
        """Describes a model in Triton's form; raises the errors of `Catalog.resolve`."""
        return self._described.config(self._models.resolve(request.name, request.version, call))

    async def ModelStatistics(self, request: "pb.ModelStatisticsRequest", call: GrpcCall) -> Message:
        """Returns the statistics of one model, or of all that are loaded.

        Raises:
            Unsupported: The server has no metrics.

        """
        entries = [entry for entry in visible(call, self._catalog.entries) if entry.state is State.READY]
        if request.name:
            entries = [self._models.resolve(request.name, request.version, call)]
        return self._described.statistics(entries)

    async def RepositoryIndex(self, request: "pb.RepositoryIndexRequest", call: GrpcCall) -> Message:
        """Lists the models of the configuration, or those that are ready."""
        return self._described.index(visible(call, self._catalog.entries), only_ready=request.ready)

    async def RepositoryModelLoad(self, request: "pb.RepositoryModelLoadRequest", call: GrpcCall) -> Message:
        """Reloads a model of the configuration, in all its versions.

        Raises:
            Unsupported: The request brings a configuration or files.
            ServingError: The model is unknown, is being loaded, or cannot be reloaded.

        """
        if request.parameters:
            raise Unsupported(
                "The models of this server come from its configuration, and not from its callers. Leave the parameters "
                "out."
            )
        if not request.model_name:
            raise ModelNotNamed("The request has no model_name. RepositoryIndex lists the models.")
        self._catalog.get(request.model_name, "")
        entries = [entry for entry in self._catalog.entries if entry.name == request.model_name]
        for entry in entries:
            check_model(call, entry)
        for entry in entries:
            await self._reload(entry)
        return _Loaded()

    async def ModelInfer(self, message: "pb.ModelInferRequest", call: GrpcCall, arrival: Arrival) -> Message:
        """Predicts the rows of one request; raises the errors of `Engine.predict`."""
        entry = arrival.model(message.model_name, message.model_version)
        return await entry.engine.predict(self._request(entry, message, call), call.deadline)

    async def ModelStreamInfer(self, messages: "AsyncIterator[pb.ModelInferRequest]", call: GrpcCall, _: None) -> None:
        """Answers each message of a stream, in order; an error takes the place of an answer."""
        requests = _RequestIds(messages)

        async def submit(message: "pb.ModelInferRequest") -> "asyncio.Future[Message]":
            entry = answering(call, self._models.resolve(message.model_name, message.model_version, call))
            return await entry.engine.submit(self._request(entry, message, call), call.deadline)

        def make_output(answer: Message) -> Message:
            requests.ids.popleft()
            output = _StreamResponse(infer_response=cast("pb.ModelInferResponse", answer))
            output.infer_response.parameters["triton_final_response"].bool_param = True
            return output

        def make_error(error: ServingError) -> Message:
            failed = _Response(id=requests.ids.popleft())
            return _StreamResponse(error_message=f"{error.status}: {error.text}", infer_response=failed)

        max_unread_s = self._catalog.entries[0].engine.max_unread_s
        await answer_in_order(requests, call, submit, make_output, make_error, max_unread_s=max_unread_s)

    def _request(self, entry: Entry, message: "pb.ModelInferRequest", call: GrpcCall) -> TensorsRequest:
        return TensorsRequest(self._described.codec(entry), message, call, call.message_bytes)


class _RequestIds(AsyncIterator["pb.ModelInferRequest"]):
    """The requests of a stream, whose ids are kept until they are answered."""

    def __init__(self, messages: "AsyncIterator[pb.ModelInferRequest]") -> None:
        self._messages = messages
        self.ids: deque[str] = deque()

    async def __anext__(self) -> "pb.ModelInferRequest":
        try:
            message = await anext(self._messages)
        except ServingError:  # It does not parse; an error answers it too.
            self.ids.append("")
            raise
        self.ids.append(message.id)
        return message


def _unsupported(reason: str) -> Callable[[Message, GrpcCall], Awaitable[NoReturn]]:
    async def refuse(request: Message, call: GrpcCall) -> NoReturn:
        raise Unsupported(reason)

    return refuse


def handlers(dispatcher: RpcDispatcher, servicer: OpenInferenceServicer, models: NamedModels) -> "Handlers":
    """Makes the handlers of the service."""
    service = protos.service(NAME)
    made = {}
    for method in service.methods:
        path, name = f"/{NAME}/{method.name}", method.name
        if name == "ModelInfer":
            made[name] = dispatcher.admitting_handler(
                path, method, servicer.ModelInfer, models.admit, request_class=servicer.reader
            )
        elif name == "ModelStreamInfer":
            made[name] = dispatcher.admitting_handler(path, method, servicer.ModelStreamInfer, models.admit_stream)
        else:
            reason = next((text for part, text in NOT_IMPLEMENTED.items() if part in name), None)
            answer = _unsupported(reason) if reason is not None else getattr(servicer, name)
            made[name] = dispatcher.handler(path, method, answer)
    return grpc.method_handlers_generic_handler(NAME, made)
