"""What every hosted model can do, wherever it comes from.

Rule of this module: words only. It imports neither MLflow nor gRPC, so that the rooms above can be
tested with a model written in three lines.
"""

from typing import Any, Protocol


class InputRefused(Exception):
    """The data or params do not fit the model; raised before any of the model's own code ran.

    The `__cause__` is what the check raised. Its text may repeat the payload: it is neither shown nor
    logged, `mlflow_grpc.payload` finds words of its own.
    """


class HostedModel(Protocol):
    """A loaded model. Its `predict` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """The name in logs, health and answers: letters, digits, `.`, `_` and `-`."""
        ...

    @property
    def description(self) -> str:
        """A few words for the ready line: what kind of model this is."""
        ...

    def predict(self, data: Any, params: dict[str, Any] | None) -> Any:
        """The model's predictions for parsed data, in whatever type the model returns.

        Raises:
            InputRefused: The data or params do not fit.
            ModelFailed: The model's own code raised.

        """
        ...
