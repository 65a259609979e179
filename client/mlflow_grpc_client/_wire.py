"""The messages on the wire, from descriptors in a pool of their own.

Rule of this module: nothing is registered in protobuf's default pool, so that a program can use this client together
with its own stubs for mlflow.proto, google.rpc or grpc.health.v1.
"""

from importlib import resources
from typing import Any
from urllib.parse import unquote

from _mlflow_grpc_protocol import flight_data as protocol
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool

PREDICT = "/MLflow/predict"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
LIST_MODELS = "/mlflow_grpc.v1.Models/ListModels"
GET_MODEL = "/mlflow_grpc.v1.Models/GetModel"
PREDICT_MANY = "/MLflowStream/predict_many"
PREDICT_STREAM = "/MLflowStream/predict_stream"
DO_EXCHANGE = "/arrow.flight.protocol.FlightService/DoExchange"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
"""A method with streams, to which a single request is sent. On the wire that equals a unary call."""

_pool = DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(
    resources.files(__package__).joinpath("mlflow.binpb").read_bytes()
).file:
    _pool.Add(_file)


def message_class(name: str) -> Any:
    """The class of a message by its full name."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(name))


Input, Output = map(message_class, ("Input", "Output"))
HealthCheckRequest, HealthCheckResponse = (
    message_class(f"grpc.health.v1.HealthCheck{name}") for name in ("Request", "Response")
)
ListModelsRequest, ListModelsResponse, GetModelRequest, Model, FieldRules = (
    message_class(f"mlflow_grpc.v1.{name}")
    for name in ("ListModelsRequest", "ListModelsResponse", "GetModelRequest", "Model", "FieldRules")
)

FlightDescriptor = message_class("arrow.flight.protocol.FlightDescriptor")


class FlightData(protocol.FlightData):
    """A message of an exchange of tables."""

    MESSAGE = message_class("arrow.flight.protocol.FlightData")

    __slots__ = ()


def flight_data(header: bytes, body: "bytes | memoryview" = b"", **fields: Any) -> FlightData:
    """The message for the header and the body of a message of Arrow, with further fields."""
    return FlightData(FlightData.MESSAGE(data_header=header, **fields), body)


def text_input(text: str) -> Any:
    """The Input message of a payload.

    Raises:
        UnicodeEncodeError: The text has a lone surrogate, which UTF-8 cannot carry.

    """
    text.encode()
    return Input(value=text)


def enum_name(enum: Any, number: int) -> str:
    """The name of an enum value; the number as a text for a value of a newer server."""
    return str(enum.Name(number)) if number in enum.values() else str(number)


def ignored_columns(value: str) -> tuple[list[str], int]:
    """The names in the trailer `mlflow-ignored-columns`, and the number of names that it left out."""
    names, _, more = value.partition(";more=")
    return [unquote(name) for name in names.split(",") if name], int(more) if more.isascii() and more.isdigit() else 0
