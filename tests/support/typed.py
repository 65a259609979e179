"""Calls typed services as a reflection client does: with descriptors that come from the server."""

from typing import Any

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "model_grpc_service.ModelgRPCService"


class TypedCaller:
    """Calls the RPCs of one server's typed service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        self.service: Any = self.pool.FindServiceByName(SERVICE)

    def method(self, name: str) -> Any:
        return self.service.FindMethodByName(name)

    def input(self, name: str, fields: dict[str, Any]) -> Any:
        """The input message of a method, filled from protobuf's JSON."""
        kind: Any = message_factory.GetMessageClass(self.method(name).input_type)
        return json_format.ParseDict(fields, kind(), descriptor_pool=self.pool)

    def __call__(self, name: str, message: Any, *, timeout: float = 30.0) -> Any:
        """The answer to a message, or to one that is made of protobuf's JSON."""
        if isinstance(message, dict):
            message = self.input(name, message)
        rpc: Any = self._channel.unary_unary(f"/{SERVICE}/{name}")
        answer: Any = message_factory.GetMessageClass(self.method(name).output_type)
        return answer.FromString(rpc(message.SerializeToString(), timeout=timeout))

    def outcome(self, name: str, message: Any) -> tuple[str, Any]:
        """The status, and the answer or the error's details."""
        try:
            return "OK", self(name, message)
        except grpc.RpcError as error:
            return error.code().name, error.details()


def plain(message: Any) -> Any:
    """What stands in an answer, as Python's values; absent fields are left out."""
    if message.DESCRIPTOR.full_name == "google.protobuf.Value":
        return json_format.MessageToDict(message)
    found = {}
    for field, value in message.ListFields():
        if field.message_type is None:
            found[field.name] = list(value) if field.is_repeated else value
        elif field.message_type.GetOptions().map_entry:
            is_message = field.message_type.fields_by_name["value"].message_type is not None
            found[field.name] = {key: plain(value[key]) if is_message else value[key] for key in value}
        elif field.is_repeated:
            found[field.name] = [plain(each) for each in value]
        else:
            found[field.name] = plain(value)
    return found
