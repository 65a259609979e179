"""The interface of every hosted model.

Rule of this module: it has only types, and imports neither MLflow nor gRPC, so that tests of the packages above can use
a model of a few lines.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from mlflow_grpc.contract.lockfile.format import LockFile
from mlflow_grpc.contract.types import Contract


class InputRejected(Exception):
    """The data or params do not fit the model; raised before the model's own code runs.

    The `__cause__` is the exception of the check. Its text may contain the payload, so it is neither shown nor logged.
    `mlflow_grpc.payload` writes its own message.
    """


@dataclass(frozen=True)
class SchemaTexts:
    """A schema in two formats; both are empty if the model has no schema."""

    mlflow_json: str = ""
    """The schema in MLflow's JSON format."""
    json_schema: str = ""


@dataclass(frozen=True)
class ModelInfo:
    """Information about a model for its callers; fields without a value are empty."""

    display_name: str = ""
    description: str = ""
    flavors: tuple[str, ...] = ()
    run_id: str = ""
    model_id: str = ""
    contract: Contract = field(default_factory=Contract)
    lock: LockFile | None = None
    """Names and numbers of its messages, if its directory has a lock file."""
    input: SchemaTexts = SchemaTexts()
    output: SchemaTexts = SchemaTexts()
    params: SchemaTexts = SchemaTexts()
    deterministic: bool | None = None
    """True if the same input always has the same output; None if the model does not declare it."""
    example: str = ""
    """A payload that the model takes."""
    is_example_typed: bool = False
    """True if only typed RPCs take the example, because MLflow refuses it as JSON."""
    logged_example: str = ""
    """The example that was logged with the model; if it is empty, `example` is generated from the schema."""


class HostedModel(Protocol):
    """A loaded model. Its `predict` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """Name in logs, health checks and answers: letters, digits, `.`, `_` and `-`."""
        ...

    @property
    def version(self) -> str:
        """Version in the catalog, with the characters of a name; empty if the model has none."""
        ...

    @property
    def description(self) -> str:
        """Short description of the type of model, for the ready line."""
        ...

    @property
    def info(self) -> ModelInfo:
        """Information about the model for its callers."""
        ...

    @property
    def streams(self) -> bool:
        """True if the model has a `predict_stream`."""
        ...

    def predict_stream(self, data: Any, params: dict[str, Any] | None) -> Iterator[Any]:
        """Yields the chunks of an answer in the type that the model returns; only for a model that `streams`.

        The iterator raises the exceptions of `predict`. The call itself raises none.
        """
        ...

    def predict(self, data: Any, params: dict[str, Any] | None) -> Any:
        """Returns the predictions for parsed data, in the type that the model returns.

        Raises:
            InputRejected: The data or params do not fit the model.
            ModelFailed: The model's own code raised an exception.

        """
        ...
