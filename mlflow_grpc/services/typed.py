"""Service model_grpc_service.ModelgRPCService: an RPC with types of its own for each model, made when it is loaded.

Rule of this module: its messages stand in a pool of the server's own, so that neither a hosted model nor a second
server in the process can clash with them.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from packaging.version import InvalidVersion, Version

from mlflow_grpc import protos
from mlflow_grpc.contract import comments, messages, service
from mlflow_grpc.contract.fields import PACKAGE
from mlflow_grpc.contract.lockfile.lockset import LockSet
from mlflow_grpc.contract.messages import FileMaker
from mlflow_grpc.contract.shapes import ModelMessages, RpcKind
from mlflow_grpc.contract.types import Contract
from mlflow_grpc.engine.catalog import Catalog, Entry
from mlflow_grpc.engine.typed_plan import plan
from mlflow_grpc.errors import ServingError
from mlflow_grpc.payload.codec import RecordCodec
from mlflow_grpc.payload.typed import TypedCodec
from mlflow_grpc.payload.typed_codecs import TypedCodecs
from mlflow_grpc.payload.typed_rows import RowsCodec
from mlflow_grpc.services import doors
from mlflow_grpc.services.calls import Call, Calls, Door
from mlflow_grpc.services.doors import CallDoor, Find, StreamDoor
from mlflow_grpc.services.streams import answer_each, error_message

if TYPE_CHECKING:
    from mlflow_grpc.engine.loading import Loaded
    from mlflow_grpc.services.calls import Handler

NAME = f"{PACKAGE}.{messages.SERVICE}"


class TypedService(grpc.GenericRpcHandler):
    """The service, once it is made: until then it has no method."""

    def __init__(self, calls: Calls, catalog: Catalog, locks: LockSet = LockSet()) -> None:  # noqa: B008 - frozen
        self._calls = calls
        self._catalog = catalog
        self._locks = locks
        self._handlers: dict[str, Handler] = {}
        self.pool: DescriptorPool = protos.POOL
        self._maker: FileMaker | None = None
        self._made: list[tuple[Entry, ModelMessages]] = []

    def service(self, handler_call_details: Any) -> "Handler | None":
        """The handler of a method."""
        return self._handlers.get(handler_call_details.method)

    def messages_of(self, entry: Entry) -> ModelMessages | None:
        """The messages of a model, if it has some."""
        return next((each for made, each in self._made if made is entry), None)

    def methods_of(self, entry: Entry) -> list[MethodDescriptor]:
        """The RPCs that call a model."""
        found = self.messages_of(entry)
        names = {rpc.name for rpc in service.rpcs_of(found)} if found is not None else set()
        return [method for method in self.pool.FindServiceByName(NAME).methods if method.name in names] if names else []

    def file(self) -> FileDescriptorProto | None:
        """The file that the pool has beside those of `protos`, with comments, which take some time."""
        maker = self._maker
        return comments.described(maker.file, maker.comments) if maker is not None else None

    def make(self) -> bool:
        """Makes messages and RPCs for the models that are loaded and say what they take; again when more are loaded.

        Returns:
            Whether there are any.

        """
        maker, made = plan(self._catalog, self._locks)
        if not made:
            return False
        self.pool, self._maker = protos.pool_with(maker.file), maker
        self._made = [(entry, each) for entry, _, each in made]
        collection = self._class("model_collection")(models=[_described(*each) for each in made])
        methods = self.pool.FindServiceByName(NAME).methods_by_name
        path = f"/{NAME}/get_models"
        self._handlers[path] = self._calls.handler(path, methods["get_models"], _Collection(collection).call)
        for entry, loaded, each in made:
            if (codec := loaded.record_codec) is not None:
                rpcs = self._rpcs(entry, codec, loaded.model.about.contract, each)
                for rpc in service.rpcs_of(each):
                    path = f"/{NAME}/{rpc.name}"
                    answering = rpcs[rpc.rpc_kind]
                    self._handlers[path] = self._calls.handler(
                        path, methods[rpc.name], answering.call, door=answering.door, level=logging.INFO
                    )
        return True

    def _rpcs(self, entry: Entry, codec: RecordCodec, contract: Contract, each: ModelMessages) -> dict[RpcKind, Any]:
        """What answers the RPCs of a model."""
        find = doors.only(entry, each.fingerprint)
        codecs = TypedCodecs(codec, contract, each, self._class)
        rpcs = {
            RpcKind.ONE: _One(find, entry, codecs.one),
            RpcKind.MANY: _Many(find, entry, codecs.one, self._class("error")),
            RpcKind.STREAM: _Stream(find, entry, codecs.chunks),
        }
        if codecs.rows is not None:
            rpcs[RpcKind.BATCH] = _Batch(find, entry, codecs.rows)
        return rpcs

    def _class(self, name: str) -> Any:
        return protos.message_class(self.pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


class _One:
    """One model's RPC for one record."""

    def __init__(self, find: Find, entry: Entry, codec: TypedCodec) -> None:
        self.door: Door = CallDoor(find)
        self._engine = entry.engine
        self._codec = codec

    async def call(self, request: Any, call: Call) -> Message:
        """Answers it; see `Engine.predict` for the errors."""
        asked = self._engine.record(request, self._codec, call.ignored.add)
        answer: Message = await self._engine.predict(
            asked, time_remaining_s=call.context.time_remaining(), usage=call.usage
        )
        return answer


class _Batch:
    """One model's RPC for rows in columns."""

    def __init__(self, find: Find, entry: Entry, codec: RowsCodec) -> None:
        self.door: Door = CallDoor(find)
        self._engine = entry.engine
        self._codec = codec

    async def call(self, request: Any, call: Call) -> Message:
        """Answers them; see `Engine.predict` for the errors."""
        asked = self._engine.rows(request, self._codec, call.ignored.add)
        answer: Message = await self._engine.predict(
            asked, time_remaining_s=call.context.time_remaining(), usage=call.usage
        )
        return answer


class _Many:
    """One model's RPC for a stream of records."""

    def __init__(self, find: Find, entry: Entry, codec: TypedCodec, error_class: Any) -> None:
        self.door: Door = StreamDoor(find)
        self._engine = entry.engine
        self._codec = codec
        self._error_class = error_class

    async def call(self, requests: AsyncIterator[Any], call: Call) -> None:
        """Answers each record, in their order; what fails has its error in its place."""

        def begin(request: Any) -> "Awaitable[asyncio.Future[Any]]":
            asked = self._engine.record(request, self._codec, call.ignored.add)
            return self._engine.begin(asked, time_remaining_s=call.context.time_remaining(), usage=call.usage)

        await answer_each(requests, call, begin, lambda answer: answer, self._failed)

    def _failed(self, error: ServingError) -> Message:
        return self._codec.failed(error_message(self._error_class, error))


class _Stream:
    """One model's RPC for an answer in parts."""

    def __init__(self, find: Find, entry: Entry, codec: TypedCodec) -> None:
        self.door: Door = CallDoor(find)
        self._engine = entry.engine
        self._codec = codec

    async def call(self, request: Any, call: Call) -> None:
        """Gives the parts; see `Engine.predict_stream` for the errors."""
        asked = self._engine.record(request, self._codec, call.ignored.add)
        async with aclosing(
            self._engine.predict_stream(asked, time_remaining_s=call.context.time_remaining(), usage=call.usage)
        ) as parts:
            async for message in parts:
                await call.write(message)


class _Collection:
    """The models of the service."""

    def __init__(self, collection: Message) -> None:
        self._collection = collection

    async def call(self, request: Any, call: Call) -> Message:
        """All of them."""
        return self._collection


def _described(entry: Entry, loaded: "Loaded", each: ModelMessages) -> dict[str, Any]:
    """A model as the family's `get_models` describes it."""
    about = loaded.model.about
    try:
        release = (*Version(entry.version).release, 0, 0)
    except InvalidVersion:
        release = (0, 0)
    return {
        "qualified_name": entry.name,
        "display_name": about.display_name or entry.name,
        "description": about.description,
        "major_version": release[0],
        "minor_version": release[1],
        "input_type": each.input.name,
        "output_type": each.output.name,
        "predict_operation": "" if RpcKind.ONE in each.refused else f"{each.base}_predict",
    }
