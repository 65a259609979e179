"""The settings of models that change while the server runs, which `mlflow_grpc.settings.Settings` inherits.

Rule of this module: it only declares settings. `keep_previous_s` and `webhook_secret` have no effect unless a model is
tracked.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, field_validator

from mlflow_grpc.declarations import Flag, duration_s, setting

MIN_TRACK_S, MAX_TRACK_S = 0.1, 86_400.0
"""Shortest and longest interval between two queries of the registry, or two readings of a file, in seconds."""


class RolloutSettings(BaseModel):
    """Settings of models that follow their registry, or a configuration file."""

    track_s: Annotated[float | None, BeforeValidator(duration_s), Flag(("--track",), metavar="SECONDS")] = setting(
        None,
        "MLFLOW_GRPC_TRACK",
        text="The interval in seconds, such as 30 or 30s, at which the registry is queried for the version behind an "
        "alias, models:/name/latest or a stage. A new version replaces the served one without a restart. Not queried "
        "if not set.",
        ge=MIN_TRACK_S,
        le=MAX_TRACK_S,
        allow_inf_nan=False,
    )
    keep_previous_s: Annotated[float, BeforeValidator(duration_s), Flag(("--keep-previous",), metavar="SECONDS")] = (
        setting(
            300.0,
            "MLFLOW_GRPC_KEEP_PREVIOUS",
            text="The time in seconds that a replaced version stays loaded, so that it can be served again at once. "
            "Has an effect only with --track.",
            ge=0,
            le=86_400,
            allow_inf_nan=False,
        )
    )
    watch_config_s: Annotated[
        float | None, BeforeValidator(duration_s), Flag(("--watch-config",), metavar="SECONDS")
    ] = setting(
        None,
        "MLFLOW_GRPC_WATCH_CONFIG",
        text="The interval in seconds, such as 30 or 30s, at which the file of --config is read again. If it has "
        "changed, new worker processes with its models replace the old ones, without a restart. Not read again if "
        "not set.",
        ge=MIN_TRACK_S,
        le=MAX_TRACK_S,
        allow_inf_nan=False,
    )
    webhook_secret: Annotated[Path | None, Flag(("--webhook-secret",), metavar="FILE")] = setting(
        None,
        "MLFLOW_GRPC_WEBHOOK_SECRET",
        text="The file with the secret of an MLflow webhook. The HTTP port then takes events at /webhooks/mlflow, "
        "and queries the registry as soon as it gets one.",
    )

    @field_validator("webhook_secret")
    @classmethod
    def _secret_with_home(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value is not None else None
