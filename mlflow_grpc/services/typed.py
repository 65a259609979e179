"""Service model_grpc_service.ModelgRPCService: RPCs with message types of their own for each model.

Rule of this module: the messages are in a descriptor pool of the server's own, so that neither a hosted model nor a
second server in the process can clash with them. They are made when the models are loaded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import grpc
from _mlflow_grpc_protocol.metadata import CONTRACT_KEY
from _mlflow_grpc_protocol.typed_terms import RpcKind
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from packaging.version import InvalidVersion, Version

from mlflow_grpc import protos
from mlflow_grpc.access.permits import Permit
from mlflow_grpc.choices import Service
from mlflow_grpc.contract import comments, messages, service
from mlflow_grpc.contract.fields import PACKAGE
from mlflow_grpc.contract.lockfile.format import LockedModel
from mlflow_grpc.contract.lockfile.lockset import LockSet
from mlflow_grpc.contract.messages import FileMaker
from mlflow_grpc.contract.shapes import ModelMessages
from mlflow_grpc.contract.subset import subset
from mlflow_grpc.contract.types import Contract
from mlflow_grpc.engine.admission import Stage
from mlflow_grpc.engine.catalog import Catalog, Entry, State
from mlflow_grpc.engine.requests import RecordRequest, Request, RowsRequest
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.engine.typed_plan import plan
from mlflow_grpc.errors import ContractChanged, NotReady, ServingError, Unsupported
from mlflow_grpc.payload.codec import RecordCodec
from mlflow_grpc.payload.protobuf.codecs import TypedCodecs
from mlflow_grpc.services.dispatch import ModelRpcMethod, ResolveModel, RpcDispatcher
from mlflow_grpc.services.grpc_call import GrpcCall
from mlflow_grpc.services.guard import visible
from mlflow_grpc.services.model_servicer import ModelServicer
from mlflow_grpc.services.streams import error_message
from mlflow_grpc.telemetry.calls import UNKNOWN

if TYPE_CHECKING:
    from mlflow_grpc.services.dispatch import Handler

NAME = f"{PACKAGE}.{messages.SERVICE}"

_PREFIX = f"/{NAME}/"

_GET_MODELS = f"{_PREFIX}get_models"

_UNKNOWN_METHOD = f"{_PREFIX}{UNKNOWN}"
"""Path in metrics and log of calls that arrive before the methods are known."""

RPC_KINDS = tuple(RpcKind)


@dataclass(frozen=True)
class TypedOffer:
    """Messages and models of typed RPCs, ready to be offered."""

    maker: FileMaker
    pool: DescriptorPool
    models: tuple[tuple[Entry, ServableModel, ModelMessages], ...]

    def fingerprint_of(self, entry: Entry) -> str:
        """Returns the fingerprint of a model's messages; empty if it has no typed RPCs."""
        return next((messages.fingerprint for other, _, messages in self.models if other is entry), "")


@dataclass(frozen=True)
class TypedFiles:
    """The typed RPCs as reflection shows them."""

    pool: DescriptorPool
    file: FileDescriptorProto | None
    """The file with its comments; None if there are no typed RPCs."""


class TypedService(grpc.GenericRpcHandler):
    """The typed service. Until `make` has been called for all models, calls of other methods are UNAVAILABLE.

    They would be UNIMPLEMENTED otherwise, which clients do not retry, although the method will exist in a moment.
    """

    def __init__(
        self,
        dispatcher: RpcDispatcher,
        catalog: Catalog,
        locks: LockSet = LockSet(),  # noqa: B008 - frozen
    ) -> None:
        self._dispatcher = dispatcher
        self._catalog = catalog
        self._locks = locks
        self._handlers: dict[str, Handler] = {}
        stream = protos.service("MLflowStream").methods_by_name["predict_many"]  # Any message is read as a stream.
        self._while_loading = dispatcher.handler(_UNKNOWN_METHOD, stream, _not_ready)
        # gRPC's own answer would reveal to unknown callers which models do not exist.
        self._unknown = dispatcher.handler(_UNKNOWN_METHOD, stream, _no_such_method) if dispatcher.has_gate else None
        dispatcher.reserve_metrics(_GET_MODELS)
        self.pool: DescriptorPool = protos.POOL
        self._maker: FileMaker | None = None
        self._messages: list[tuple[Entry, ModelMessages]] = []
        self._reported: set[str] = set()  # Why models have no typed RPCs. The log has each reason once.

    def service(self, handler_call_details: "grpc.HandlerCallDetails") -> "Handler | None":
        """Returns the handler of a method; gRPC calls this for each call."""
        path = handler_call_details.method
        handler = self._handlers.get(path)
        if handler is None and path.startswith(_PREFIX):
            return self._while_loading if self._is_loading else self._unknown
        return handler

    @property
    def _is_loading(self) -> bool:
        return any(entry.state is State.LOADING for entry in self._catalog.entries)

    def messages_of(self, entry: Entry) -> ModelMessages | None:
        """Returns the messages of a model; None if it has no typed RPCs."""
        return next((messages for typed_entry, messages in self._messages if typed_entry is entry), None)

    def methods_of(self, entry: Entry) -> list[MethodDescriptor]:
        """Returns the descriptors of a model's typed RPCs."""
        model_messages = self.messages_of(entry)
        names = {rpc.name for rpc in service.rpcs_of(model_messages)} if model_messages is not None else set()
        return [method for method in self.pool.FindServiceByName(NAME).methods if method.name in names] if names else []

    def file(self) -> FileDescriptorProto | None:
        """Returns the file of the typed messages with its comments, which take some time; None before `make`."""
        maker = self._maker
        return comments.described(maker.file, maker.comments) if maker is not None else None

    def seen_by(self, permit: Permit) -> frozenset[str]:
        """Returns the names of the typed RPCs that reflection shows to a caller, without `get_models`."""
        entries = permit.visible(Service.REFLECTION, [entry for entry, _ in self._messages])
        return frozenset(
            rpc.name for entry, messages in self._messages if entry in entries for rpc in service.rpcs_of(messages)
        )

    def part(self, rpcs: frozenset[str]) -> "TypedFiles | None":
        """Returns the file with some of the typed RPCs; None if these are all. May be called in any thread.

        The comments of a large file, and its pool, take some time.
        """
        maker = self._maker
        if maker is None or rpcs >= {rpc.name for _, messages in self._messages for rpc in service.rpcs_of(messages)}:
            return None
        if not rpcs:
            return TypedFiles(protos.POOL, None)
        file = subset(maker.file, {"get_models", *rpcs})
        return TypedFiles(protos.pool_with(file), comments.described(file, maker.comments))

    def make(self) -> bool:
        """Makes messages and RPCs for the loaded models that have a signature; called again when more are loaded.

        Returns:
            True if there are any.

        """
        prepared = self.prepare(self._catalog, self._locks)
        if not prepared.models:
            return False
        self.offer(prepared)
        return True

    def prepare(self, catalog: Catalog, locks: LockSet) -> "TypedOffer":
        """Makes the messages of the loaded models, and changes nothing; may be called in any thread.

        Args:
            catalog: The models.
            locks: The locks of the models.

        Raises:
            StartError: As `mlflow_grpc.engine.typed_plan.plan`.

        """
        maker, planned = plan(catalog, locks, self._reported)
        return TypedOffer(maker, protos.pool_with(maker.file) if planned else protos.POOL, tuple(planned))

    @property
    def is_offered(self) -> bool:
        """True if at least one model has typed RPCs."""
        return bool(self._messages)

    @property
    def locked(self) -> dict[str, LockedModel]:
        """Names and numbers that are offered now, by the models' lock keys."""
        return dict(self._maker.locks) if self._maker is not None else {}

    def offer(self, prepared: "TypedOffer") -> None:
        """Answers calls of the prepared RPCs from now on, in place of those before."""
        self.pool, self._maker, planned = prepared.pool, prepared.maker, prepared.models
        self._messages = [(entry, model_messages) for entry, _, model_messages in planned]
        self._handlers = handlers = {}
        if not planned:
            return
        collection_class = self._class("model_collection")
        descriptions = [(typed_model[0], _description(*typed_model)) for typed_model in planned]
        collection = collection_class(models=[description for _, description in descriptions])

        async def get_models(request: object, call: GrpcCall) -> Message:
            entries = visible(call, [entry for entry, _ in descriptions])
            if len(entries) == len(descriptions):
                return collection
            return collection_class(models=[description for entry, description in descriptions if entry in entries])

        descriptors = self.pool.FindServiceByName(NAME).methods_by_name
        handlers[_GET_MODELS] = self._dispatcher.handler(_GET_MODELS, descriptors["get_models"], get_models)
        for entry, model, model_messages in planned:
            if (codec := model.record_codec) is None:
                continue
            methods = self._methods(codec, model.model.info.contract, model_messages)
            resolve = _resolver(entry, model_messages.fingerprint)
            for rpc in service.rpcs_of(model_messages):
                path = f"/{NAME}/{rpc.name}"
                metrics = entry.engine.metrics
                method_metrics = None if metrics is None else metrics.typed_rpcs[RPC_KINDS.index(rpc.rpc_kind)]
                handlers[path] = self._dispatcher.model_handler(
                    path, descriptors[rpc.name], methods[rpc.rpc_kind], resolve, method_metrics
                )

    def _methods(
        self, codec: RecordCodec, contract: Contract, messages: ModelMessages
    ) -> dict[RpcKind, ModelRpcMethod]:
        """Returns what answers the RPCs of a model."""
        codecs = TypedCodecs(codec, contract, messages, self._class)
        error_class = self._class("error")

        def make_error(error: ServingError) -> Message:
            return codecs.record.encode_error(error_message(error_class, error))

        def servicer(make: Callable[[Message, GrpcCall, int], Request[Message]]) -> ModelServicer[Message, Message]:
            return ModelServicer(lambda message, call: make(message, call, call.message_bytes), _unchanged, make_error)

        records = servicer(partial(RecordRequest, codecs.record))
        chunks = servicer(partial(RecordRequest, codecs.chunks))
        methods: dict[RpcKind, ModelRpcMethod] = {
            RpcKind.ONE: records.predict,
            RpcKind.MANY: records.predict_many,
            RpcKind.STREAM: chunks.predict_stream,
        }
        if codecs.rows is not None:
            methods[RpcKind.BATCH] = servicer(partial(RowsRequest, codecs.rows)).predict
        return methods

    def _class(self, name: str) -> type[Message]:
        return protos.message_class(self.pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


async def _not_ready(request: object, call: GrpcCall) -> NoReturn:
    raise NotReady(Stage.LOADING.value)


async def _no_such_method(request: object, call: GrpcCall) -> NoReturn:
    raise Unsupported("Method not found!")


def _unchanged(answer: Message) -> Message:
    return answer


def _resolver(entry: Entry, fingerprint: str) -> ResolveModel:
    """Resolves calls to one model, in messages of the contract with a fingerprint."""

    def resolve(call: GrpcCall) -> Entry:
        contract = call.metadata(CONTRACT_KEY)
        if contract not in (None, fingerprint) and contract not in entry.accepted_contracts:
            raise ContractChanged(
                f"The typed messages of the model {entry.name} have changed since the client of this call got them. "
                "Fetch them again by server reflection."
            )
        return entry

    return resolve


def _description(entry: Entry, servable: ServableModel, messages: ModelMessages) -> dict[str, object]:
    """Describes a model for `get_models`."""
    info = servable.model.info
    try:
        release = (*Version(entry.version).release, 0, 0)
    except InvalidVersion:
        release = (0, 0)
    return {
        "qualified_name": entry.name,
        "display_name": info.display_name or entry.name,
        "description": info.description,
        "major_version": release[0],
        "minor_version": release[1],
        "input_type": messages.input.name,
        "output_type": messages.output.name,
        "predict_operation": "" if RpcKind.ONE in messages.refused else f"{messages.base}_predict",
    }
