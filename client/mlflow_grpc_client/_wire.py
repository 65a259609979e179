"""The messages on the wire, from descriptors in a pool of their own.

Rule of this module: nothing is registered in protobuf's default pool, so that a program can use this client together
with its own stubs for mlflow.proto, google.rpc or grpc.health.v1.
"""

from dataclasses import dataclass, field
from importlib import resources
from typing import Any
from urllib.parse import unquote

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

PREDICT = "/MLflow/predict"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
LIST_MODELS = "/mlflow_grpc.v1.Models/ListModels"
GET_MODEL = "/mlflow_grpc.v1.Models/GetModel"
PREDICT_MANY = "/MLflowStream/predict_many"
PREDICT_STREAM = "/MLflowStream/predict_stream"
DETAILS_KEY = "grpc-status-details-bin"

_pool = DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(
    resources.files(__package__).joinpath("mlflow.binpb").read_bytes()
).file:
    _pool.Add(_file)


def message_class(name: str) -> Any:
    """The class of a message by its full name."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(name))


_Input, _Output = message_class("Input"), message_class("Output")
_Status, _ErrorInfo, _BadRequest, _DebugInfo = (
    message_class("google.rpc.Status"),
    message_class("google.rpc.ErrorInfo"),
    message_class("google.rpc.BadRequest"),
    message_class("google.rpc.DebugInfo"),
)
_HealthRequest, _HealthResponse = (
    message_class("grpc.health.v1.HealthCheckRequest"),
    message_class("grpc.health.v1.HealthCheckResponse"),
)


def input_bytes(value: str) -> bytes:
    """A serialised Input.

    Raises:
        UnicodeEncodeError: The text has a lone surrogate, which UTF-8 cannot carry.

    """
    value.encode()
    data: bytes = _Input(value=value).SerializeToString()
    return data


def output_text(data: bytes) -> str:
    """The value of a serialised Output.

    Raises:
        DecodeError: The bytes are not an Output.

    """
    value: str = _Output.FromString(data).value
    return value


def output_or_error(data: bytes) -> tuple[str, Any]:
    """The value of a serialised Output of a stream, and its error or None.

    Raises:
        DecodeError: The bytes are not an Output.

    """
    output = _Output.FromString(data)
    return output.value, output.error if output.HasField("error") else None


def health_request_bytes(service: str) -> bytes:
    """A serialised HealthCheckRequest."""
    data: bytes = _HealthRequest(service=service).SerializeToString()
    return data


def health_status(data: bytes) -> str:
    """The name of the status in a serialised HealthCheckResponse, such as SERVING.

    Raises:
        DecodeError: The bytes are not a HealthCheckResponse.

    """
    return enum_name(_HealthResponse.ServingStatus, _HealthResponse.FromString(data).status)


def enum_name(enum: Any, number: int) -> str:
    """The name of an enum value; the number as a text for a value of a newer server."""
    return str(enum.Name(number)) if number in enum.values() else str(number)


@dataclass(frozen=True, slots=True)
class StatusDetails:
    """The details of a google.rpc.Status that this client uses."""

    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: tuple[tuple[str, str], ...] = ()
    exception: str = ""


def status_details(data: bytes) -> StatusDetails:
    """The details of a serialised google.rpc.Status; empty if a proxy has damaged it."""
    info, bad_request, debug = _ErrorInfo(), _BadRequest(), _DebugInfo()
    try:
        for detail in _Status.FromString(data).details:
            for message in (info, bad_request, debug):
                if detail.type_url.endswith(f"/{message.DESCRIPTOR.full_name}"):
                    message.ParseFromString(detail.value)
    except DecodeError:
        return StatusDetails()
    violations = tuple((violation.field, violation.description) for violation in bad_request.field_violations)
    exception = "\n  at ".join([debug.detail, *debug.stack_entries])
    return StatusDetails(info.reason, dict(info.metadata), violations, exception)


def ignored_columns(value: str) -> tuple[list[str], int]:
    """The names in the trailer `mlflow-ignored-columns`, and the number of names that it left out."""
    names, _, more = value.partition(";more=")
    return [unquote(name) for name in names.split(",") if name], int(more) if more.isascii() and more.isdigit() else 0
