"""The challenger of a model in a configuration file: where it comes from, and which calls it gets.

Rule of this module: it declares and checks, and calls no model. A call's group depends on its key alone, so all workers
and replicas put it into the same group.
"""

import re
from hashlib import blake2b
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints, model_validator

from mlflow_grpc.choices import OnError
from mlflow_grpc.naming import Name, canonical_uri

MAX_CPU_SHARE = 0.01
"""Default share of one processor core for a shadow. Model code holds Python's interpreter, so about as many calls meet
a running shadow: one in a hundred leaves the 99th percentile of their durations as it is."""


def _as_share(value: Any) -> Any:
    """Returns a percentage such as `5%` as a number; other values unchanged, for pydantic."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*%\s*", value) if isinstance(value, str) else None
    try:
        return value if match is None else float(match[1]) / 100
    except ValueError:
        return value


def _checked_share(share: float) -> float:
    if not 0 < share <= 1:
        raise ValueError("has to be a percentage such as 5%, or a number above 0 and up to 1")
    return share


def _metadata_key(key: str) -> str:
    key = key.lower()
    if not re.fullmatch(r"[a-z0-9_.-]+", key) or key.endswith("-bin"):
        raise ValueError(
            "has to be a metadata key with a text: letters, digits, '.', '_' and '-', and no -bin at its end"
        )
    return key


Share = Annotated[float, BeforeValidator(_as_share), AfterValidator(_checked_share)]


class Challenger(BaseModel):
    """Another model that gets a share of the calls, or runs behind them as a shadow."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: Annotated[str, StringConstraints(min_length=1), AfterValidator(canonical_uri)]
    version: Name | None = None
    """Version for callers; by default that of the model."""
    share: Share | None = None
    """Share of the calls, above 0 and up to 1; None for all, which only a shadow may have."""
    sticky_by: Annotated[str, AfterValidator(_metadata_key)] | None = None
    """Metadata key whose value decides the group of a call; None for the request id."""
    shadow: bool = False
    """True if the challenger runs behind the calls, and its answers are compared instead of sent."""
    max_cpu: Share | None = None
    """Share of one processor core that a shadow may take; None for MAX_CPU_SHARE."""
    on_error: OnError | None = None

    @model_validator(mode="after")
    def _fits_its_purpose(self) -> Self:
        if self.share is None and not self.shadow:
            raise ValueError(
                "share is missing: say which share of the calls it answers, such as 5%, or set shadow: true"
            )
        if self.max_cpu is not None and not self.shadow:
            raise ValueError("max_cpu limits a shadow: set shadow: true, or leave max_cpu out")
        return self

    def selects(self, key: str) -> bool:
        """Returns True if a call belongs to the group of the challenger.

        A key is always in the same group, and stays in it while the share grows.

        Args:
            key: What identifies the caller or the call.

        """
        if self.share is None:
            return True
        position = int.from_bytes(blake2b(key.encode(errors="replace"), digest_size=8).digest())
        return position < self.share * 2**64
