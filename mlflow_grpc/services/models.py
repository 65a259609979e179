"""Service mlflow_grpc.v1.Models: which models the server hosts, and how each is called.

Rule of this module: it tells what the catalog knows, and touches no model.
"""

from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from mlflow_grpc import protos
from mlflow_grpc.engine.catalog import MODEL_KEY, Catalog, Entry, State
from mlflow_grpc.errors import FieldViolation, InvalidPayload
from mlflow_grpc.hosting.model import SchemaTexts
from mlflow_grpc.services import text
from mlflow_grpc.services.calls import Call, Calls
from mlflow_grpc.services.typed import NAME as NAME_OF_TYPED
from mlflow_grpc.services.typed import TypedService

if TYPE_CHECKING:
    from mlflow_grpc.services.calls import Handlers

NAME = "mlflow_grpc.v1.Models"

_Model = protos.message_named("mlflow_grpc.v1.Model")
_Schema = protos.message_named("mlflow_grpc.v1.Schema")
_Page = protos.message_named("mlflow_grpc.v1.ListModelsResponse")
_STATES = {State.LOADING: _Model.LOADING, State.READY: _Model.READY, State.FAILED: _Model.FAILED}


class ModelsServicer:
    """Describes the models of a catalog."""

    def __init__(self, catalog: Catalog, typed: TypedService) -> None:
        self._catalog = catalog
        self._typed = typed

    async def ListModels(self, request: Any, call: Call) -> Message:
        """All models, or a page of them.

        Raises:
            InvalidPayload: There are no pages of this size, or none that begins at this token.

        """
        if request.page_size < 0:
            raise _refused("page_size", "must not be negative")
        entries = self._catalog.entries
        tokens = ["", *map(str, range(1, len(entries)))]
        if request.page_token not in tokens:
            raise _refused("page_token", "must be a next_page_token of an answer before")
        start = tokens.index(request.page_token)
        end = start + (request.page_size or len(entries))
        page: Message = _Page(
            models=[self._describe(entry) for entry in entries[start:end]],
            next_page_token=str(end) if end < len(entries) else "",
        )
        return page

    async def GetModel(self, request: Any, call: Call) -> Message:
        """One model; see `Catalog.get` for the errors."""
        return self._describe(self._catalog.get(request.name, request.version))

    def _describe(self, entry: Entry) -> Message:
        message = _Model(
            name=entry.name,
            version=entry.version,
            state=_STATES[entry.state],
            error=_sayable(entry.error),
            uri=entry.config.source,
        )
        loaded = entry.loaded
        if loaded is not None:
            about = loaded.model.about
            message.display_name, message.description = _sayable(about.display_name), _sayable(about.description)
            message.flavors.extend(map(_sayable, about.flavors))
            message.run_id, message.model_id = _sayable(about.run_id), _sayable(about.model_id)
            for part in ("input", "output", "params"):
                _copy(getattr(about, part), message, part)
            self._add_field_names(message, entry)
            message.batched, message.batching_reason = loaded.batched, loaded.batching_reason
            if about.deterministic is not None:
                message.deterministic = about.deterministic
            message.example, message.example_is_typed = _sayable(about.example), about.is_example_typed
            if entry.config.endpoint:
                self._add_rpcs(message.rpcs, entry, streams=loaded.model.streams)
        described: Message = message
        return described

    def _add_field_names(self, message: Any, entry: Entry) -> None:
        made = self._typed.messages_of(entry)
        if made is not None:
            message.contract = made.fingerprint
            message.names.update({name: _sayable(word) for name, word in made.model_names.names.items()})
            message.wrappers.extend(made.model_names.wrappers)
        for part in ("input", "output", "params") if made is not None else ():
            typed = getattr(made, part)
            for slot in typed.fields if typed is not None else ():
                if slot.source.name and slot.name != slot.source.name:
                    getattr(message, part).field_names[slot.name] = _sayable(slot.source.name)

    def _add_rpcs(self, rpcs: Any, entry: Entry, *, streams: bool) -> None:
        metadata = {} if self._catalog.is_reached_without_name(entry) else {MODEL_KEY: entry.label}
        for service in (text.NAME, text.STREAM_NAME):
            for method in protos.service(service).methods:
                if streams or method.name != "predict_stream":
                    _add_rpc(rpcs, service, method, metadata)
        for method in self._typed.methods_of(entry):
            _add_rpc(rpcs, NAME_OF_TYPED, method, {})


def _add_rpc(rpcs: Any, service: str, method: MethodDescriptor, metadata: dict[str, str]) -> None:
    rpcs.add(
        path=f"/{service}/{method.name}",
        request_type=method.input_type.full_name,
        response_type=method.output_type.full_name,
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        metadata=metadata,
    )


def _copy(schema: SchemaTexts, message: Any, field: str) -> None:
    if schema != SchemaTexts():
        said = {"mlflow_json": _sayable(schema.mlflow_json), "json_schema": _sayable(schema.json_schema)}
        getattr(message, field).MergeFrom(_Schema(**said))


def _sayable(text: str) -> str:
    """A text as protobuf takes it: models may have lone surrogates, which YAML and JSON can say and UTF-8 cannot."""
    return text.encode(errors="replace").decode()


def _refused(field: str, what: str) -> InvalidPayload:
    return InvalidPayload(
        f"{field} {what}.", reason="INVALID_PARAMETER_VALUE", violations=(FieldViolation(field, what),)
    )


def handlers(calls: Calls, catalog: Catalog, typed: TypedService) -> "Handlers":
    """The handlers of service mlflow_grpc.v1.Models."""
    return calls.handlers(protos.service(NAME), ModelsServicer(catalog, typed))
