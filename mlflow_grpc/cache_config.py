"""The cache of a model's answers in a configuration file.

Rule of this module: it declares limits. `mlflow_grpc.engine.answer_cache` keeps them.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class CacheLimits(BaseModel):
    """Limits of a cache. A model that has one is stated to be deterministic."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: Annotated[int, Field(ge=1, le=100_000_000)]
    """Maximum number of predicted rows in the cache."""
    bytes: Annotated[int, Field(ge=2**16)] = 64 * 2**20
    """Maximum size of payloads and answers in the cache, in bytes."""
