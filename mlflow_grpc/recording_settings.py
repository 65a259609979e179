"""The settings of recorded calls, which `mlflow_grpc.settings.Settings` inherits.

Rule of this module: it only declares settings. `record_share` has no effect without `record`.
"""

import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, field_validator

from mlflow_grpc.declarations import Flag, setting


def _share(value: Any) -> Any:
    """Returns a percentage such as `1%` as a number from 0 to 1; other values unchanged, for pydantic."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError:
            raise ValueError("must be a percentage such as 1%, or a number such as 0.01") from None
    return value


class RecordingSettings(BaseModel):
    """Settings of recorded calls."""

    record: Annotated[Path | None, Flag(("--record",), metavar="DIR")] = setting(
        None,
        "MLFLOW_GRPC_RECORD",
        text="The directory for a sample of the calls, with their inputs and outputs, as Parquet files. They may be "
        "personal data. No call is recorded if not set.",
    )
    record_share: Annotated[float, BeforeValidator(_share), Flag(("--record-share",), metavar="SHARE")] = setting(
        0.01,
        "MLFLOW_GRPC_RECORD_SHARE",
        text="The share of the calls that is recorded, such as 1% or 0.01. Has an effect only with --record.",
    )

    @field_validator("record")
    @classmethod
    def _record_with_home(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value is not None else None

    @field_validator("record_share")
    @classmethod
    def _is_share(cls, value: float) -> float:
        if not (math.isfinite(value) and 0 < value <= 1):
            raise ValueError("must be above 0 and at most 1, which is 100%")
        return value
