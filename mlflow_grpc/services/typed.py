"""Service model_grpc_service.ModelgRPCService: an RPC with types of its own for each model, made when it is loaded.

Rule of this module: its messages stand in a pool of the server's own, so that neither a hosted model nor a second
server in the process can clash with them.
"""

import logging
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from packaging.version import InvalidVersion, Version

from mlflow_grpc import protos
from mlflow_grpc.contract import messages
from mlflow_grpc.contract.messages import FileMaker
from mlflow_grpc.contract.shapes import ModelMessages
from mlflow_grpc.engine.catalog import Catalog, Entry
from mlflow_grpc.payload.typed import TypedCodec
from mlflow_grpc.services.calls import Call, Calls

if TYPE_CHECKING:
    from mlflow_grpc.engine.loading import Loaded
    from mlflow_grpc.services.calls import Handler

NAME = f"{messages.PACKAGE}.{messages.SERVICE}"


def plan(catalog: Catalog) -> "tuple[FileMaker, list[tuple[Entry, Loaded, ModelMessages]]]":
    """Makes the messages and the service for the models that are loaded and say what they take.

    Returns:
        The file with its comments, and for each of those models its messages.

    """
    maker = FileMaker()
    made = [
        (entry, entry.loaded, maker.add(_label(entry, catalog), entry.loaded.model.about.contract))
        for entry in catalog.entries
        if entry.config.endpoint and entry.loaded is not None and entry.loaded.record_codec
    ]
    messages.add_service(maker.file, [each for _, _, each in made])
    for entry, loaded, each in made:
        about = loaded.model.about
        said = [about.display_name or entry.label, about.description]
        maker.comments[messages.SERVICE, f"{each.base}_predict"] = ": ".join(filter(None, said))
    return maker, made


class TypedService(grpc.GenericRpcHandler):
    """The service, once it is made: until then it has no method."""

    def __init__(self, calls: Calls, catalog: Catalog) -> None:
        self._calls = calls
        self._catalog = catalog
        self._handlers: dict[str, Handler] = {}
        self.pool: DescriptorPool = protos.POOL
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
        methods = self.pool.FindServiceByName(NAME).methods if found else ()
        return [method for method in methods if found and method.name == f"{found.base}_predict"]

    def make(self) -> bool:
        """Makes messages and RPCs for the models that are loaded and say what they take.

        Returns:
            Whether there are any.

        """
        maker, made = plan(self._catalog)
        if not made:
            return False
        self.pool = protos.pool_with(maker.file)
        self._made = [(entry, each) for entry, _, each in made]
        collection = self._class("model_collection")(models=[_described(*each) for each in made])
        servicers: dict[str, Any] = {"get_models": _Collection(collection)}
        for entry, loaded, each in made:
            if (codec := loaded.record_codec) is not None:
                output_class = self._class(each.output.name)
                typed_codec = TypedCodec(codec, loaded.model.about.contract, each, output_class)
                servicers[f"{each.base}_predict"] = _Predict(entry, typed_codec)
        for method in self.pool.FindServiceByName(NAME).methods:
            servicer = servicers[method.name]
            door = servicer if isinstance(servicer, _Predict) else None
            level = logging.INFO if door is not None else logging.DEBUG
            path = f"/{NAME}/{method.name}"
            self._handlers[path] = self._calls.handler(path, method, servicer.call, door=door, level=level)
        return True

    def _class(self, name: str) -> Any:
        return protos.message_class(self.pool.FindMessageTypeByName(f"{messages.PACKAGE}.{name}"))


class _Predict:
    """One model's RPC for one record."""

    def __init__(self, entry: Entry, codec: TypedCodec) -> None:
        self._entry = entry
        self._codec = codec

    def arrive(self, call: Call) -> None:
        """Takes note of a call of which nothing has been read, or refuses it."""
        call.model, call.engine = self._entry.name, self._entry.engine
        self._entry.engine.admission.arrive()

    def depart(self, call: Call) -> None:
        """A call that arrived has ended."""
        self._entry.engine.admission.depart()

    async def call(self, request: Any, call: Call) -> Message:
        """Answers one record; see `Engine.predict_record` for the errors."""
        answer: Message = await self._entry.engine.predict_record(
            request, self._codec, time_remaining_s=call.context.time_remaining()
        )
        return answer


class _Collection:
    """The models of the service."""

    def __init__(self, collection: Message) -> None:
        self._collection = collection

    async def call(self, request: Any, call: Call) -> Message:
        """All of them."""
        return self._collection


def _label(entry: Entry, catalog: Catalog) -> str:
    """What a model's messages begin with: its name, and its version where it is not the one that a name means."""
    return entry.name if catalog.get(entry.name, "") is entry else f"{entry.name}_{entry.version}"


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
        "predict_operation": f"{each.base}_predict",
    }
