"""The messages on the wire, read from descriptors in a pool of their own.

Rule of this module: nothing is registered in protobuf's default pool, so that a program may use this
client beside stubs of its own for mlflow.proto, google.rpc or grpc.health.v1.
"""

from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

PREDICT = "/MLflow/predict"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
DETAILS_KEY = "grpc-status-details-bin"
CONTENT_TYPE_KEY = "mlflow-content-type"
REQUEST_ID_KEY = "x-request-id"
MODEL_KEY = "mlflow-model"

_pool = DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(
    resources.files(__package__).joinpath("mlflow.binpb").read_bytes()
).file:
    _pool.Add(_file)


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(name))


_Input, _Output = _message("Input"), _message("Output")
_Status, _ErrorInfo, _BadRequest = (
    _message("google.rpc.Status"),
    _message("google.rpc.ErrorInfo"),
    _message("google.rpc.BadRequest"),
)
_HealthRequest, _HealthResponse = (
    _message("grpc.health.v1.HealthCheckRequest"),
    _message("grpc.health.v1.HealthCheckResponse"),
)


def input_bytes(value: str) -> bytes:
    """An Input message.

    Raises:
        UnicodeEncodeError: The text has a lone surrogate, which UTF-8 cannot carry.

    """
    value.encode()
    data: bytes = _Input(value=value).SerializeToString()
    return data


def output_text(data: bytes) -> str:
    """The value of an Output message.

    Raises:
        DecodeError: It is none.

    """
    value: str = _Output.FromString(data).value
    return value


def health_request_bytes(service: str) -> bytes:
    """A HealthCheckRequest."""
    data: bytes = _HealthRequest(service=service).SerializeToString()
    return data


def health_status(data: bytes) -> str:
    """The status in a HealthCheckResponse by its name, such as SERVING.

    Raises:
        DecodeError: It is none.

    """
    status = _HealthResponse.FromString(data).status
    known = _HealthResponse.ServingStatus.values()
    name: str = _HealthResponse.ServingStatus.Name(status) if status in known else str(status)
    return name


@dataclass(frozen=True, slots=True)
class StatusDetails:
    """What this client reads of a google.rpc.Status."""

    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: tuple[tuple[str, str], ...] = ()


def status_details(data: bytes) -> StatusDetails:
    """The details in a serialised google.rpc.Status; none, if something on the way has made it unreadable."""
    info, bad_request = _ErrorInfo(), _BadRequest()
    try:
        for detail in _Status.FromString(data).details:
            for message in (info, bad_request):
                if detail.type_url.endswith(f"/{message.DESCRIPTOR.full_name}"):
                    message.ParseFromString(detail.value)
    except DecodeError:
        return StatusDetails()
    violations = tuple((violation.field, violation.description) for violation in bad_request.field_violations)
    return StatusDetails(info.reason, dict(info.metadata), violations)
