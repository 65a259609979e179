"""The models of a server, as service mlflow_grpc.v1.Models describes them."""

import json
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from mlflow_grpc_client import _html, _schema_text
from mlflow_grpc_client._wire import enum_name


@dataclass(frozen=True, slots=True)
class Model:
    """A model of a server. Fields are empty if the server does not know their values."""

    name: str
    version: str
    state: str
    """READY, LOADING, or FAILED with the reason in `error`."""
    error: str
    display_name: str
    description: str
    flavors: tuple[str, ...]
    uri: str
    run_id: str
    model_id: str
    input_schema: dict[str, Any]
    """JSON Schema of a row, or of the whole input of a model that takes a tensor."""
    output_schema: dict[str, Any]
    params_schema: dict[str, Any]
    batched: bool
    batching_reason: str
    deterministic: bool | None
    """None if the model does not declare it."""
    rpcs: tuple[str, ...]
    """Paths of the RPCs that call the model."""
    example: str
    """A valid payload."""
    example_is_typed: bool = False
    """True if only typed calls accept the example, because MLflow refuses it as JSON."""

    @property
    def label(self) -> str:
        """The model in the options of a call: `name` or `name/version`."""
        return f"{self.name}/{self.version}" if self.version else self.name

    def _repr_html_(self) -> str:
        facts = {
            "state": self.state,
            "error": self.error,
            "flavors": ", ".join(self.flavors),
            "description": self.description,
            "uri": self.uri,
        }
        schemas = {"input": self.input_schema, "params": self.params_schema, "output": self.output_schema}
        tables = [
            f"<i>{name}</i>{_html.table((), _schema_text.field_rows(schema))}"
            for name, schema in schemas.items()
            if schema
        ]
        return _html.facts(self.label, facts) + "".join(tables)


class Models(list[Model]):
    """A list of models, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        heads = ("model", "state", "flavors", "description")
        rows = [
            (model.label, model.state, ", ".join(model.flavors), model.error or model.description) for model in self
        ]
        return _html.table(heads, rows)


def models_of(response: Any) -> Models:
    """The models in a ListModelsResponse; raises DecodeError for a schema that is not JSON."""
    return Models(map(_model, response.models))


def _model(message: Any) -> Model:
    texts = ("name", "version", "error", "display_name", "description", "uri", "run_id", "model_id", "batching_reason")
    return Model(
        **{name: getattr(message, name) for name in (*texts, "batched", "example", "example_is_typed")},
        state=enum_name(message.State, message.state),
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
