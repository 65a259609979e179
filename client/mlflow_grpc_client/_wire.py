"""The messages on the wire, read from descriptors in a pool of their own.

Rule of this module: nothing is registered in protobuf's default pool, so that a program may use this
client beside stubs of its own for mlflow.proto, google.rpc or grpc.health.v1.
"""

import json
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
CONTENT_TYPE_KEY = "mlflow-content-type"
REQUEST_ID_KEY = "x-request-id"
MODEL_KEY = "mlflow-model"
CONTRACT_KEY = "mlflow-contract"
IGNORED_KEY = "mlflow-ignored-columns"

_pool = DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(
    resources.files(__package__).joinpath("mlflow.binpb").read_bytes()
).file:
    _pool.Add(_file)


def message_class(name: str) -> Any:
    """The class of a message of the contract, by its full name."""
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
_ListRequest, _ListResponse = (
    message_class("mlflow_grpc.v1.ListModelsRequest"),
    message_class("mlflow_grpc.v1.ListModelsResponse"),
)
_GetRequest, _Model = message_class("mlflow_grpc.v1.GetModelRequest"), message_class("mlflow_grpc.v1.Model")


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


def output_parts(data: bytes) -> tuple[str, Any]:
    """The value of an Output message of a stream, and its error or None.

    Raises:
        DecodeError: It is none.

    """
    output = _Output.FromString(data)
    return output.value, output.error if output.HasField("error") else None


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
class Model:
    """A model of a server. What is not known of it is empty."""

    name: str
    version: str
    state: str
    """READY, LOADING, or FAILED if it could not be loaded; `error` then says why."""
    error: str
    display_name: str
    description: str
    flavors: tuple[str, ...]
    uri: str
    run_id: str
    model_id: str
    input_schema: dict[str, Any]
    """JSON Schema of one row, or of the whole where the model takes a tensor."""
    output_schema: dict[str, Any]
    params_schema: dict[str, Any]
    batched: bool
    batching_reason: str
    deterministic: bool | None
    """None if the model does not say."""
    rpcs: tuple[str, ...]
    """The paths of the RPCs that call it."""
    example: str
    """A payload that it takes."""
    example_is_typed: bool = False
    """Whether its typed calls alone take the example, since MLflow refuses it as JSON."""

    @property
    def label(self) -> str:
        """What a call names it by: `name`, or `name/version`."""
        return f"{self.name}/{self.version}" if self.version else self.name

    def _repr_html_(self) -> str:
        from mlflow_grpc_client import _html
        from mlflow_grpc_client._cli import describe

        said = {
            "state": self.state,
            "error": self.error,
            "flavors": ", ".join(self.flavors),
            "description": self.description,
            "uri": self.uri,
        }
        schemas = {"input": self.input_schema, "params": self.params_schema, "output": self.output_schema}
        tables = [
            f"<i>{name}</i>{_html.table((), describe.field_rows(schema))}" for name, schema in schemas.items() if schema
        ]
        return _html.facts(self.label, said) + "".join(tables)


class Models(list[Model]):
    """The models of a server: a list, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        from mlflow_grpc_client import _html

        heads = ("model", "state", "flavors", "description")
        rows = [(each.label, each.state, ", ".join(each.flavors), each.error or each.description) for each in self]
        return _html.table(heads, rows)


def list_models_bytes() -> bytes:
    """A ListModelsRequest for all models."""
    data: bytes = _ListRequest().SerializeToString()
    return data


def get_model_bytes(label: str) -> bytes:
    """A GetModelRequest for `name` or `name/version`."""
    name, _, version = label.partition("/")
    data: bytes = _GetRequest(name=name, version=version).SerializeToString()
    return data


def model_message(data: bytes) -> Any:
    """A message mlflow_grpc.v1.Model.

    Raises:
        DecodeError: It is none.

    """
    return _Model.FromString(data)


def models(data: bytes) -> Models:
    """The models in a ListModelsResponse.

    Raises:
        DecodeError: It is none.

    """
    return Models(_model(message) for message in _ListResponse.FromString(data).models)


def _model(message: Any) -> Model:
    texts = ("name", "version", "error", "display_name", "description", "uri", "run_id", "model_id", "example")
    plain = (*texts, "batched", "batching_reason", "example_is_typed")
    return Model(
        **{
            name: getattr(message, name)
            for name in (*plain, "batched", "batching_reason", "example", "example_is_typed")
        },
        state=message.State.Name(message.state) if message.state in message.State.values() else str(message.state),
        flavors=tuple(message.flavors),
        input_schema=_schema(message.input.json_schema),
        output_schema=_schema(message.output.json_schema),
        params_schema=_schema(message.params.json_schema),
        deterministic=message.deterministic if message.HasField("deterministic") else None,
        rpcs=tuple(rpc.path for rpc in message.rpcs),
    )


def _schema(text: str) -> dict[str, Any]:
    try:
        schema = json.loads(text or "{}")
    except ValueError:
        raise DecodeError("a schema is not JSON") from None
    return schema if isinstance(schema, dict) else {}


@dataclass(frozen=True, slots=True)
class StatusDetails:
    """What this client reads of a google.rpc.Status."""

    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: tuple[tuple[str, str], ...] = ()
    exception: str = ""


def status_details(data: bytes) -> StatusDetails:
    """The details in a serialised google.rpc.Status; none, if something on the way has made it unreadable."""
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
    """The names in the trailer `mlflow-ignored-columns`, and how many there was no room for."""
    names, _, more = value.partition(";more=")
    return [unquote(name) for name in names.split(",") if name], int(more) if more.isascii() and more.isdigit() else 0
