"""The service of the typed RPCs, and the messages that belong to no model.

Rule of this module: names and numbers are those that this family of services has.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileOptions

from mlflow_grpc import protos
from mlflow_grpc.contract.fields import PACKAGE
from mlflow_grpc.contract.messages import SERVICE
from mlflow_grpc.contract.shapes import ModelMessages, RpcKind

Proto = FieldDescriptorProto


WORDS = {
    RpcKind.BATCH: "The same for any number of rows at once, in columns.",
    RpcKind.MANY: "The same for a stream of records, answered in their order. In the place of a record that failed the "
    "answer has nothing but the error.",
    RpcKind.STREAM: "Gives the answer part by part, each when it is there.",
}
"""What a comment says of an RPC, but for that of one record."""


@dataclass(frozen=True)
class Rpc:
    """An RPC of a model."""

    name: str
    kind: RpcKind
    input: str
    """The name of a message."""
    output: str


def rpcs_of(model: ModelMessages) -> Iterator[Rpc]:
    """The RPCs of a model."""
    for kind in model.rpcs:
        of_rows = model.batch if kind is RpcKind.BATCH else None
        takes, gives = (model.input, model.output) if of_rows is None else (of_rows.inputs, of_rows.outputs)
        if kind is RpcKind.STREAM and model.chunk is not None:
            gives = model.chunk
        yield Rpc(f"{model.base}_{kind}", kind, takes.name, gives.name)


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
"""Of the file, for compilers: without them Go has no package, and the classes of others get the wire's names."""

_MODEL_FIELDS = ("qualified_name", "display_name", "description", "major_version", "minor_version", "input_type")


def add_service(file: FileDescriptorProto, models: Iterable[ModelMessages]) -> None:
    """Adds the service, its `get_models`, and an RPC for each model, all named as this family of services has them, and
    what compilers for other languages call the classes.
    """
    file.options.CopyFrom(OPTIONS)
    file.message_type.add(name="empty")
    model = file.message_type.add(name="model")
    for number, name in enumerate((*_MODEL_FIELDS, "output_type", "predict_operation"), start=1):
        kind = Proto.TYPE_SINT32 if name.endswith("_version") else Proto.TYPE_STRING
        model.field.add(name=name, number=number, label=Proto.LABEL_OPTIONAL, type=kind)
    collection = file.message_type.add(name="model_collection")
    collection.field.add(
        name="models",
        number=1,
        label=Proto.LABEL_REPEATED,
        type=Proto.TYPE_MESSAGE,
        type_name=f".{PACKAGE}.model",
    )
    _add_error(file)
    for needed in (timestamp_pb2.Timestamp.DESCRIPTOR, struct_pb2.Value.DESCRIPTOR):
        if f".{needed.full_name}" in _types(file):
            file.dependency.append(needed.file.name)
    service = file.service.add(name=SERVICE)
    service.method.add(name="get_models", input_type=f".{PACKAGE}.empty", output_type=f".{PACKAGE}.model_collection")
    for rpc in (rpc for each in models for rpc in rpcs_of(each)):
        method = service.method.add(
            name=rpc.name, input_type=f".{PACKAGE}.{rpc.input}", output_type=f".{PACKAGE}.{rpc.output}"
        )
        # Set where it is true only, as protoc does.
        if rpc.kind is RpcKind.MANY:
            method.client_streaming = True
        if rpc.kind in (RpcKind.MANY, RpcKind.STREAM):
            method.server_streaming = True


def _add_error(file: FileDescriptorProto) -> None:
    """The message that says why a record of a stream has no answer; the same as `Output.Error` of mlflow.proto."""
    for name, source in (("error", "Output.Error"), ("field_violation", "Output.FieldViolation")):
        message = file.message_type.add()
        protos.message_named(source).DESCRIPTOR.CopyToProto(message)
        message.name = name
        for field in message.field:
            field.ClearField("json_name")
            if field.type_name:
                field.type_name = f".{PACKAGE}.field_violation"


def _types(file: FileDescriptorProto) -> set[str]:
    """The types of all fields that have a named one, those of maps included."""
    parts = [part for message in file.message_type for part in (message, *message.nested_type)]
    return {field.type_name for part in parts for field in part.field}
