"""Service mlflow_grpc.v1.Models: the models of the server, and how to call them.

Rule of this module: it describes what is in the catalog, and runs no model.
"""

from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING

from _mlflow_grpc_protocol.metadata import MODEL_KEY
from _mlflow_grpc_protocol.shapes import FieldShape, MessageShape, WrapperShape
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from mlflow_grpc import protos
from mlflow_grpc.access.permits import Permit
from mlflow_grpc.choices import Service
from mlflow_grpc.contract.fields import PACKAGE
from mlflow_grpc.engine.catalog import Catalog, Entry, State
from mlflow_grpc.errors import FieldViolation, InvalidPayload
from mlflow_grpc.hosting.model import SchemaTexts
from mlflow_grpc.services import text
from mlflow_grpc.services.dispatch import RpcDispatcher
from mlflow_grpc.services.grpc_call import GrpcCall
from mlflow_grpc.services.guard import check_model, visible
from mlflow_grpc.services.typed import NAME as NAME_OF_TYPED
from mlflow_grpc.services.typed import TypedService

if TYPE_CHECKING:
    from mlflow_grpc.protos.mlflow_grpc.v1 import models_pb2 as pb
    from mlflow_grpc.services.dispatch import Handlers

NAME = "mlflow_grpc.v1.Models"

_Model: "type[pb.Model]" = protos.message_named("mlflow_grpc.v1.Model")
_Schema: "type[pb.Schema]" = protos.message_named("mlflow_grpc.v1.Schema")
_Page: "type[pb.ListModelsResponse]" = protos.message_named("mlflow_grpc.v1.ListModelsResponse")
_STATES = {State.LOADING: _Model.LOADING, State.READY: _Model.READY, State.FAILED: _Model.FAILED}


class ModelsServicer:
    """Describes the models of a catalog."""

    def __init__(self, catalog: Catalog, typed: TypedService) -> None:
        self._catalog = catalog
        self._typed = typed

    async def ListModels(self, request: "pb.ListModelsRequest", call: GrpcCall) -> Message:
        """Describes all models, or a page of them.

        Raises:
            InvalidPayload: The page size or the page token is invalid.

        """
        if request.page_size < 0:
            raise _refused("page_size", "must not be negative")
        entries = visible(call, self._catalog.entries)
        tokens = ["", *map(str, range(1, len(entries)))]
        if request.page_token not in tokens:
            raise _refused("page_token", "must be the next_page_token of an earlier answer")
        start = tokens.index(request.page_token)
        end = start + (request.page_size or len(entries))
        return self._page(entries[start:end], str(end) if end < len(entries) else "")

    def describe_all(self, permit: Permit | None = None) -> Message:
        """Returns the ListModelsResponse with all models, or with those that a caller may see."""
        entries = self._catalog.entries
        return self._page(entries if permit is None else permit.visible(Service.MODELS, entries), "")

    def _page(self, entries: list[Entry], next_page_token: str) -> Message:
        return _Page(models=map(self._describe, entries), next_page_token=next_page_token)

    async def GetModel(self, request: "pb.GetModelRequest", call: GrpcCall) -> Message:
        """Describes one model; raises the errors of `Catalog.get`.

        Raises:
            PermissionDenied: The caller may not see the model.

        """
        entry = self._catalog.get(request.name, request.version)
        check_model(call, entry)
        return self._describe(entry)

    def _describe(self, entry: Entry) -> "pb.Model":
        message = _Model(
            name=entry.name,
            version=entry.version,
            state=_STATES[entry.state],
            error=_as_utf8(entry.error or entry.unfit),
            uri=entry.config.source,
        )
        loaded = entry.loaded
        if loaded is not None:
            info = loaded.model.info
            message.display_name, message.description = _as_utf8(info.display_name), _as_utf8(info.description)
            message.flavors.extend(map(_as_utf8, info.flavors))
            message.run_id, message.model_id = _as_utf8(info.run_id), _as_utf8(info.model_id)
            for schema in ("input", "output", "params"):
                _copy(getattr(info, schema), message, schema)
            self._add_field_names(message, entry)
            message.batched, message.batching_reason = loaded.batched, loaded.batching_reason
            if info.deterministic is not None:
                message.deterministic = info.deterministic
            message.example, message.example_is_typed = _as_utf8(info.example), info.is_example_typed
            if entry.config.endpoint:
                self._add_rpcs(message, entry, streams=loaded.model.streams)
        return message

    def _add_field_names(self, message: "pb.Model", entry: Entry) -> None:
        typed = self._typed.messages_of(entry)
        if typed is None:
            return
        message.contract = typed.fingerprint
        message.names.update({name: _as_utf8(text) for name, text in typed.model_names.names.items()})
        message.wrappers.extend(typed.model_names.wrappers)
        for record in (typed.input, typed.params):
            if record is not None:
                _add_field_rules(message.field_rules, record.name, record.fields)
        if typed.batch is not None:
            _add_field_rules(message.field_rules, typed.batch.inputs.name, typed.batch.inputs.fields)
        for schema, shape in (("input", typed.input), ("output", typed.output), ("params", typed.params)):
            for field in shape.fields if shape is not None else ():
                if field.label != field.name:
                    getattr(message, schema).field_names[field.name] = _as_utf8(field.label)

    def _add_rpcs(self, message: "pb.Model", entry: Entry, *, streams: bool) -> None:
        metadata = {} if self._catalog.is_default(entry) else {MODEL_KEY: entry.label}
        for service in (text.NAME, text.STREAM_NAME):
            for method in protos.service(service).methods:
                if streams or method.name != "predict_stream":
                    _add_rpc(message, service, method, metadata)
        for method in self._typed.methods_of(entry):
            _add_rpc(message, NAME_OF_TYPED, method, {})


def _add_rpc(message: "pb.Model", service: str, method: MethodDescriptor, metadata: dict[str, str]) -> None:
    message.rpcs.add(
        path=f"/{service}/{method.name}",
        request_type=method.input_type.full_name,
        response_type=method.output_type.full_name,
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        metadata=metadata,
    )


def _add_field_rules(rules: "MutableMapping[str, pb.FieldRules]", message: str, fields: Sequence[FieldShape]) -> None:
    """Adds the rules for the fields of a message, and of the records in them."""
    name = f"{PACKAGE}.{message}"
    if name in rules:
        return
    rules[name].required.extend(field.number for field in fields if field.needs_value)
    rules[name].defaulted.extend(field.number for field in fields if field.has_default)
    for field in fields:
        shape = field.shape.content.shape if isinstance(field.shape, WrapperShape) else field.shape
        if isinstance(shape, MessageShape):
            _add_field_rules(rules, shape.name, shape.fields)


def _copy(schema: SchemaTexts, message: "pb.Model", field: str) -> None:
    if schema != SchemaTexts():
        getattr(message, field).MergeFrom(
            _Schema(mlflow_json=_as_utf8(schema.mlflow_json), json_schema=_as_utf8(schema.json_schema))
        )


def _as_utf8(text: str) -> str:
    """Replaces lone surrogates, which YAML and JSON can hold and protobuf cannot."""
    return text.encode(errors="replace").decode()


def _refused(field: str, problem: str) -> InvalidPayload:
    return InvalidPayload(
        f"{field} {problem}.", reason="INVALID_PARAMETER_VALUE", violations=(FieldViolation(field, problem),)
    )


def handlers(dispatcher: RpcDispatcher, servicer: ModelsServicer) -> "Handlers":
    """Makes the handlers of service mlflow_grpc.v1.Models."""
    return dispatcher.service_handlers(
        protos.service(NAME), {"ListModels": servicer.ListModels, "GetModel": servicer.GetModel}
    )
