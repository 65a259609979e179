"""What every hosted model can do, wherever it comes from.

Rule of this module: words only. It imports neither MLflow nor gRPC, so that the rooms above can be
tested with a model written in a few lines.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from mlflow_grpc.contract.lockfile.format import LockFile
from mlflow_grpc.contract.types import Contract


class InputRefused(Exception):
    """The data or params do not fit the model; raised before any of the model's own code ran.

    The `__cause__` is what the check raised. Its text may repeat the payload: it is neither shown nor
    logged, `mlflow_grpc.payload` finds words of its own.
    """


@dataclass(frozen=True)
class SchemaTexts:
    """A schema in the languages that people and programs read; empty if there is none."""

    mlflow_json: str = ""
    """As MLflow writes it."""
    json_schema: str = ""


@dataclass(frozen=True)
class About:
    """What a model says of itself to those who ask; what it does not say is empty."""

    display_name: str = ""
    description: str = ""
    flavors: tuple[str, ...] = ()
    run_id: str = ""
    model_id: str = ""
    contract: Contract = field(default_factory=Contract)
    lock: LockFile | None = None
    """Which names and numbers its messages have, if that lies in its directory."""
    input: SchemaTexts = SchemaTexts()
    output: SchemaTexts = SchemaTexts()
    params: SchemaTexts = SchemaTexts()
    deterministic: bool | None = None
    """Whether the same input always gets the same output."""
    example: str = ""
    """A payload that it takes."""
    is_example_typed: bool = False
    """Whether typed RPCs alone take it, since MLflow refuses it as JSON."""
    logged_example: str = ""
    """The one that was logged with the model; empty if there is none, and `example` is made up from its schema."""


class HostedModel(Protocol):
    """A loaded model. Its `predict` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """The name in logs, health and answers: letters, digits, `.`, `_` and `-`."""
        ...

    @property
    def version(self) -> str:
        """The version in the catalog: the same letters; empty if the model has none."""
        ...

    @property
    def description(self) -> str:
        """A few words for the ready line: what kind of model this is."""
        ...

    @property
    def about(self) -> About:
        """What it says of itself."""
        ...

    @property
    def streams(self) -> bool:
        """Whether it has a `predict_stream`."""
        ...

    def predict_stream(self, data: Any, params: dict[str, Any] | None) -> Iterator[Any]:
        """The parts of an answer, each in whatever type the model gives; raises what `predict` raises while they are
        made, and nothing before. Only for a model that `streams`.
        """
        ...

    def predict(self, data: Any, params: dict[str, Any] | None) -> Any:
        """The model's predictions for parsed data, in whatever type the model returns.

        Raises:
            InputRefused: The data or params do not fit.
            ModelFailed: The model's own code raised.

        """
        ...
