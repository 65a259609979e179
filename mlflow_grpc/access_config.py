"""The key `access` of a configuration file: which callers may call which models and services.

Rule of this module: it declares and checks the rules. `mlflow_grpc.access.permits` applies them.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from mlflow_grpc.choices import Service

Pattern = Annotated[str, StringConstraints(min_length=1)]


class AccessRule(BaseModel):
    """What some callers may do. A caller may do what at least one rule for it allows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    callers: tuple[Pattern, ...] = Field(min_length=1)
    """Names of callers, as the log has them; `*` stands for any characters."""
    models: tuple[Pattern, ...] = ("*",)
    """Names of models, `name` or `name/version`; `*` stands for any characters. All models by default."""
    services: tuple[Service, ...] = tuple(service for service in Service if service is not Service.HEALTH)
    """Services; all of them by default."""
