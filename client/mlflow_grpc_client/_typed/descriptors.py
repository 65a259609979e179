"""Conversion of descriptors and of a message mlflow_grpc.v1.Model into contracts.

Rule of this module: it makes no call; `discovery` fetches the descriptors.
"""

from typing import Any, cast

import grpc
from _mlflow_grpc_protocol.field_numbers import (
    ERROR_NUMBER,
    EXTRA_NUMBER,
    NULL_ITEMS_NUMBER,
    NULLS_NUMBER,
    PARAMS_NUMBER,
)
from _mlflow_grpc_protocol.shapes import (
    EnumShape,
    FieldShape,
    MessageShape,
    OneofShape,
    ProtoType,
    ScalarShape,
    Shape,
    TensorShape,
    TimestampShape,
    ValueShape,
    WrapperShape,
)
from _mlflow_grpc_protocol.typed_terms import Cardinality, RpcKind
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from mlflow_grpc_client import _wire
from mlflow_grpc_client._reflection import SERVICE
from mlflow_grpc_client._typed.contract import Contract, Rpc
from mlflow_grpc_client.errors import failure

ERROR_MESSAGE = "model_grpc_service.error"


_WELL_KNOWN: dict[str, Shape] = {
    "google.protobuf.Timestamp": TimestampShape(),
    "google.protobuf.Value": ValueShape(),
}


def types_key(model: Any) -> bytes:
    """The parts of a message mlflow_grpc.v1.Model that define its typed messages; equal bytes mean equal types."""
    parts = type(model)(
        input=model.input, output=model.output, params=model.params, rpcs=model.rpcs, contract=model.contract
    )
    parts.names.update(model.names)
    parts.wrappers.extend(model.wrappers)
    data: bytes = parts.SerializeToString(deterministic=True)
    return data


def label_of(model: Any) -> str:
    """`name/version`, or `name` without a version, for a message mlflow_grpc.v1.Model."""
    return f"{model.name}/{model.version}" if model.version else str(model.name)


def awaits_typed(model: Any) -> bool:
    """True for a model of a message mlflow_grpc.v1.Model that is ready and has types, but no typed RPC now.

    A server makes the typed RPCs once all of its models are loaded.
    """
    is_typed = model.state == model.READY and model.HasField("input")
    return bool(is_typed and model.rpcs and all(_kind(rpc) is None for rpc in model.rpcs))


def check_typed(model: Any) -> None:
    """Raises PredictError, with the reason, if the model of a message mlflow_grpc.v1.Model has no typed RPCs now."""
    label, code = label_of(model), grpc.StatusCode.UNIMPLEMENTED
    if model.state == model.FAILED:
        code, problem = grpc.StatusCode.FAILED_PRECONDITION, f"could not be loaded: {model.error}"
    elif model.state != model.READY:
        code, problem = grpc.StatusCode.UNAVAILABLE, f"is not ready: {_wire.enum_name(model.State, model.state)}"
    elif not model.rpcs:
        problem = "has no endpoint"
    elif all(_kind(rpc) is None for rpc in model.rpcs):
        reason = "typed RPC on this server" if model.HasField("input") else "signature, so no types"
        problem = f"has no {reason}: use client.predict(data, model={label!r})"
    else:
        return
    raise failure(code, f"The model {label} {problem}.")


def contract_of(model: Any, pool: DescriptorPool) -> Contract:
    """The contract of a model that has typed RPCs; raises KeyError if the pool lacks a message of it."""
    reader = _DescriptorReader(model)
    rpcs = {}
    for rpc in model.rpcs:
        if (kind := _kind(rpc)) is not None:
            request, response = (pool.FindMessageTypeByName(name) for name in (rpc.request_type, rpc.response_type))
            rpcs[kind] = Rpc(
                rpc.path,
                message_factory.GetMessageClass(request),
                reader.message(request),
                message_factory.GetMessageClass(response),
                reader.message(response),
                next((descriptor.name for descriptor in response.fields if _is_error(descriptor)), ""),
            )
    return Contract(label_of(model), types_key(model), rpcs, reader.params, model.contract)


def _kind(rpc: Any) -> RpcKind | None:
    """The kind of a typed RPC; None for any other RPC."""
    if not rpc.path.startswith(f"/{SERVICE}/"):
        return None
    return next((kind for kind in RpcKind if rpc.path.endswith(f"_{kind}")), None)


class _DescriptorReader:
    """Reads the descriptors of a model's messages."""

    def __init__(self, model: Any) -> None:
        self._names = dict(model.names)
        self._wrappers = frozenset(model.wrappers)
        self._named_by = _record_messages(model)
        self._with_params = {rpc.request_type for rpc in model.rpcs} if model.HasField("params") else set()
        self._rules = model.field_rules
        self._messages: dict[str, MessageShape] = {}
        self.params: FieldShape | None = None

    def message(self, descriptor: Descriptor) -> MessageShape:
        """The model's fields of a message. Fields for params, errors and nulls are not among them."""
        name = descriptor.full_name
        if name not in self._messages:
            self._messages[name] = message = MessageShape(descriptor.name)
            for member in descriptor.fields:
                if member.number == PARAMS_NUMBER and name in self._with_params:
                    self.params = self._field(member, descriptor)
                elif member.number == EXTRA_NUMBER:
                    message.extra = member.name
                elif member.number < NULLS_NUMBER and not _is_error(member):
                    message.fields.append(self._field(member, descriptor))
        return self._messages[name]

    def _field(self, member: FieldDescriptor, parent: Descriptor) -> FieldShape:
        cardinality, value = Cardinality.SINGULAR, member
        if member.message_type is not None and member.message_type.GetOptions().map_entry:
            cardinality, value = Cardinality.MAP, member.message_type.fields_by_name["value"]
        elif _is_repeated(member):
            cardinality = Cardinality.REPEATED
        rules = self._rules.get(parent.full_name) or _wire.FieldRules()
        nulls = parent.fields_by_number.get(NULLS_NUMBER + member.number)
        items = parent.fields_by_number.get(NULL_ITEMS_NUMBER + member.number)
        return FieldShape(
            member.name,
            self._names.get(f"{self._named_by.get(parent.full_name, parent.full_name)}.{member.name}", member.name),
            self._shape(value),
            cardinality,
            member.number,
            required=member.number in rules.required,
            has_default=member.number in rules.defaulted,
            null_flag=nulls.name if nulls is not None and not _is_repeated(nulls) else "",
            null_items=items.name if items is not None and cardinality is not Cardinality.SINGULAR else "",
            null_rows=nulls.name if nulls is not None and _is_repeated(nulls) else "",
        )

    def _shape(self, member: FieldDescriptor) -> Shape:
        if member.enum_type is not None:
            return EnumShape(member.enum_type.name, self._enum_values(member.enum_type))
        if member.message_type is None:
            return _scalar(member)
        return self._message_shape(member.message_type)

    def _enum_values(self, enum: EnumDescriptor) -> dict[int, str]:
        """The values by number, without the zero that protobuf requires."""
        names = {value.number: value.name for value in enum.values if value.number}
        return {number: self._names.get(f"{enum.file.package}.{name}", name) for number, name in names.items()}

    def _message_shape(self, descriptor: Descriptor) -> Shape:
        if shape := _WELL_KNOWN.get(descriptor.full_name):
            return shape
        if descriptor.full_name in self._wrappers:
            if "shape" in descriptor.fields_by_name:
                return TensorShape(descriptor.name, _scalar(descriptor.fields_by_name["data"]))
            (content,) = (member for member in descriptor.fields if member.number < NULLS_NUMBER)
            return WrapperShape(descriptor.name, self._field(content, descriptor))
        if "value" in descriptor.oneofs_by_name:
            return OneofShape(descriptor.name, {member.name: self._shape(member) for member in descriptor.fields})
        return self.message(descriptor)


def _scalar(member: FieldDescriptor) -> ScalarShape:
    return ScalarShape(cast("ProtoType", member.type))


def _record_messages(model: Any) -> dict[str, str]:
    """Messages with the columns of a batch or stream, and the message of a single record that names these columns."""
    typed = [rpc for rpc in model.rpcs if _kind(rpc) is not None]
    single = next((rpc for rpc in model.rpcs if rpc.path.endswith("_predict")), None)
    messages = {}
    for rpc in typed:
        messages[rpc.request_type] = (single or rpc).request_type
        messages[rpc.response_type] = (single or rpc).response_type
    return messages


def _is_error(member: FieldDescriptor) -> bool:
    message = member.message_type.full_name if member.message_type is not None else ""
    return member.number == ERROR_NUMBER and message == ERROR_MESSAGE


def _is_repeated(member: FieldDescriptor) -> bool:
    # protobuf 7 warns about `label`, and protobuf 5 has no `is_repeated`.
    repeated: Any = getattr(member, "is_repeated", None)
    label: Any = getattr(member, "label", None) if repeated is None else None
    return label == FieldDescriptor.LABEL_REPEATED if repeated is None else bool(repeated)
