"""Calls typed services like a reflection client, with descriptors that come from the server."""

from typing import Any

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "model_grpc_service.ModelgRPCService"


class TypedCaller:
    """Caller of the RPCs of one server's typed service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        self.service: Any = self.pool.FindServiceByName(SERVICE)

    def method(self, name: str) -> Any:
        return self.service.FindMethodByName(name)

    def input(self, name: str, fields: dict[str, Any]) -> Any:
        """Makes the input message of a method from protobuf's JSON."""
        message_class: Any = message_factory.GetMessageClass(self.method(name).input_type)
        return json_format.ParseDict(fields, message_class(), descriptor_pool=self.pool)

    def __call__(self, name: str, message: Any, *, timeout: float = 30.0) -> Any:
        """Returns the answer to a message, or to protobuf's JSON of one."""
        if isinstance(message, dict):
            message = self.input(name, message)
        rpc: Any = self._channel.unary_unary(f"/{SERVICE}/{name}")
        answer: Any = message_factory.GetMessageClass(self.method(name).output_type)
        return answer.FromString(rpc(message.SerializeToString(), timeout=timeout))

    def many(self, name: str, messages: list[Any], *, timeout: float = 30.0) -> list[Any]:
        """Returns the answers to a stream of messages."""
        rpc: Any = self._channel.stream_stream(f"/{SERVICE}/{name}")
        answer: Any = message_factory.GetMessageClass(self.method(name).output_type)
        requests = (message.SerializeToString() for message in messages)
        return [answer.FromString(data) for data in rpc(requests, timeout=timeout)]

    def outcome(self, name: str, message: Any) -> tuple[str, Any]:
        """Returns the status, and the answer or the error's details."""
        try:
            return "OK", self(name, message)
        except grpc.RpcError as error:
            return error.code().name, error.details()


def plain(message: Any) -> Any:
    """Returns the content of an answer as Python values, without absent fields."""
    if message.DESCRIPTOR.full_name == "google.protobuf.Value":
        return json_format.MessageToDict(message)
    content = {}
    for field, value in message.ListFields():
        if field.message_type is None:
            content[field.name] = list(value) if field.is_repeated else value
        elif field.message_type.GetOptions().map_entry:
            is_message = field.message_type.fields_by_name["value"].message_type is not None
            content[field.name] = {key: plain(value[key]) if is_message else value[key] for key in value}
        elif field.is_repeated:
            content[field.name] = [plain(member) for member in value]
        else:
            content[field.name] = plain(value)
    return content


def batch_of(caller: TypedCaller, base: str, records: list[Any]) -> Any:
    """Makes the message of rows from messages of one row each."""
    batch: Any = message_factory.GetMessageClass(caller.method(f"{base}_predict_batch").input_type)()
    for field in records[0].DESCRIPTOR.fields:
        column = getattr(batch, field.name)
        if field.name == "params":
            column.CopyFrom(records[0].params)
        elif not batch.DESCRIPTOR.fields_by_name[field.name].is_repeated:
            column.shape.extend([len(records), *getattr(records[0], field.name).shape])
            for record in records:
                column.data.extend(getattr(record, field.name).data)
        else:
            for index, record in enumerate(records):
                if not field.is_repeated and not record.HasField(field.name):
                    getattr(batch, f"{field.name}_nulls").append(index)
                _append(column, field, getattr(record, field.name))
    return batch


def rows_of(batch: Any, message_class: Any) -> list[Any]:
    """Makes messages of one row each from the message of rows."""
    columns = [field for field in batch.DESCRIPTOR.fields if field.number < 1000]
    tensors = [field for field in columns if not field.is_repeated]
    count = len(getattr(batch, columns[0].name)) if not tensors else getattr(batch, tensors[0].name).shape[0]
    rows = [message_class() for _ in range(count)]
    for field in columns:
        column = getattr(batch, field.name)
        for index, row in enumerate(rows):
            if not field.is_repeated:
                size = len(column.data) // count
                getattr(row, field.name).shape.extend(column.shape[1:])
                getattr(row, field.name).data.extend(column.data[index * size : (index + 1) * size])
            elif index not in getattr(batch, f"{field.name}_nulls", ()):
                _set(row, row.DESCRIPTOR.fields_by_name[field.name], column[index])
    return rows


def _append(column: Any, field: Any, value: Any) -> None:
    if not field.is_repeated and field.message_type is None:
        column.append(value)
        return
    item = column.add()
    if not field.is_repeated:
        item.CopyFrom(value)
    elif _is_map(field):
        _fill_map(item.values, value, field)
    else:
        item.values.extend(value)


def _set(row: Any, field: Any, value: Any) -> None:
    if not field.is_repeated and field.message_type is None:
        setattr(row, field.name, value)
    elif not field.is_repeated:
        getattr(row, field.name).CopyFrom(value)
    elif _is_map(field):
        _fill_map(getattr(row, field.name), value.values, field)
    else:
        getattr(row, field.name).extend(value.values)


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _fill_map(target: Any, source: Any, field: Any) -> None:
    for key in source:
        if field.message_type.fields_by_name["value"].message_type is None:
            target[key] = source[key]
        else:
            target[key].CopyFrom(source[key])
