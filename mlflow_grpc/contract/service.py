"""The service of the typed RPCs, and the messages that belong to no model.

Rule of this module: its names and numbers are those of model-grpc-service, whose clients can call it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from _mlflow_grpc_protocol.typed_terms import RpcKind
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileOptions

from mlflow_grpc import protos
from mlflow_grpc.contract.fields import PACKAGE
from mlflow_grpc.contract.messages import SERVICE
from mlflow_grpc.contract.shapes import ModelMessages

RPC_COMMENTS = {
    RpcKind.BATCH: "Predicts any number of rows, in columns.",
    RpcKind.MANY: "Predicts a stream of records, and answers in their order. The answer to a record that failed has "
    "only the error.",
    RpcKind.STREAM: "Answers in chunks, as soon as the model has them.",
}
"""Comments of the RPCs. That of `predict` describes the model."""


@dataclass(frozen=True)
class Rpc:
    """An RPC of a model."""

    name: str
    rpc_kind: RpcKind
    input: str
    """Name of the request message."""
    output: str
    """Name of the response message."""


def rpcs_of(model: ModelMessages) -> Iterator[Rpc]:
    """Lists the RPCs of a model."""
    for rpc_kind in model.rpcs:
        request, response = model.input.name, model.output.name
        if rpc_kind is RpcKind.BATCH and model.batch is not None:
            request, response = model.batch.inputs.name, model.batch.outputs.name
        elif rpc_kind is RpcKind.STREAM and model.chunk is not None:
            response = model.chunk.name
        yield Rpc(f"{model.base}_{rpc_kind}", rpc_kind, request, response)


OPTIONS = FileOptions(
    java_package="mlflow.grpc.models",
    java_outer_classname="ModelServiceProto",
    java_multiple_files=True,
    go_package="mlflow_grpc/modelspb",
    objc_class_prefix="MLFM",
    csharp_namespace="MlflowGrpc.Models",
    php_namespace="MlflowGrpc\\Models",
    php_metadata_namespace="MlflowGrpc\\Models\\Metadata",
    ruby_package="MlflowGrpc::Models",
)
"""Options of the file, for compilers. Go needs a package, and other languages would name classes as on the wire."""

_MODEL_FIELDS = ("qualified_name", "display_name", "description", "major_version", "minor_version", "input_type")


def add_service(file: FileDescriptorProto, models: Iterable[ModelMessages]) -> None:
    """Adds the service with `get_models` and the RPCs of all models, and the options for compilers."""
    file.options.CopyFrom(OPTIONS)
    file.message_type.add(name="empty")
    model = file.message_type.add(name="model")
    for number, name in enumerate((*_MODEL_FIELDS, "output_type", "predict_operation"), start=1):
        proto_type = Proto.TYPE_SINT32 if name.endswith("_version") else Proto.TYPE_STRING
        model.field.add(name=name, number=number, label=Proto.LABEL_OPTIONAL, type=proto_type)
    collection = file.message_type.add(name="model_collection")
    collection.field.add(
        name="models",
        number=1,
        label=Proto.LABEL_REPEATED,
        type=Proto.TYPE_MESSAGE,
        type_name=f".{PACKAGE}.model",
    )
    _add_error(file)
    for descriptor in (timestamp_pb2.Timestamp.DESCRIPTOR, struct_pb2.Value.DESCRIPTOR):
        if f".{descriptor.full_name}" in _types(file):
            file.dependency.append(descriptor.file.name)
    service = file.service.add(name=SERVICE)
    service.method.add(name="get_models", input_type=f".{PACKAGE}.empty", output_type=f".{PACKAGE}.model_collection")
    for rpc in (rpc for its_messages in models for rpc in rpcs_of(its_messages)):
        method = service.method.add(
            name=rpc.name, input_type=f".{PACKAGE}.{rpc.input}", output_type=f".{PACKAGE}.{rpc.output}"
        )
        # protoc sets these flags only where they are true.
        if rpc.rpc_kind is RpcKind.MANY:
            method.client_streaming = True
        if rpc.rpc_kind in (RpcKind.MANY, RpcKind.STREAM):
            method.server_streaming = True


def _add_error(file: FileDescriptorProto) -> None:
    """Adds the message for the error of a streamed record, with the fields of `Output.Error` in mlflow.proto."""
    for name, source in (("error", "Output.Error"), ("field_violation", "Output.FieldViolation")):
        message = file.message_type.add()
        protos.message_named(source).DESCRIPTOR.CopyToProto(message)
        message.name = name
        for field in message.field:
            field.ClearField("json_name")
            if field.type_name:
                field.type_name = f".{PACKAGE}.field_violation"


def _types(file: FileDescriptorProto) -> set[str]:
    """The message and enum types of all fields, including the entries of maps."""
    descriptors = [nested for message in file.message_type for nested in (message, *message.nested_type)]
    return {field.type_name for descriptor in descriptors for field in descriptor.field}
