"""The key `access` of a configuration file: which callers may call which models and services.

Rule of this module: it declares and checks the rules. `mlflow_grpc.access.permits` applies them.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from mlflow_grpc.choices import Service

Pattern = Annotated[str, StringConstraints(min_length=1)]

EVERY = "*"
"""The pattern of every name."""


class AccessRule(BaseModel):
    """What some callers may do. A caller may do what at least one rule for it allows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    callers: tuple[Pattern, ...] = Field(min_length=1)
    """Names of callers, as the log has them; `*` stands for any characters."""
    models: tuple[Pattern, ...] = (EVERY,)
    """Names of models, `name` or `name/version`; `*` stands for any characters. All models by default."""
    services: tuple[Service, ...] | None = None
    """Services; None for all of them. A rule for some models has no metrics then, because they show all models."""

    @property
    def allowed(self) -> frozenset[Service]:
        """The services that the rule allows. Whoever may call or see a model may see its health too."""
        if self.services is None:
            return frozenset(Service) - (frozenset() if EVERY in self.models else {Service.METRICS})
        has_health = not {Service.PREDICT, Service.MODELS}.isdisjoint(self.services)
        return frozenset(self.services) | ({Service.HEALTH} if has_health else frozenset())
