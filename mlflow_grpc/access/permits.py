"""What a recognized caller may do: the rules of the key `access` of a configuration file.

Rule of this module: a caller may do what at least one rule allows, and nothing else. Without the key, every recognized
caller may do everything. The health of the server as a whole needs no permission, so it is not asked here.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mlflow_grpc.access.patterns import Matcher, matcher_of, matches_any
from mlflow_grpc.access_config import AccessRule
from mlflow_grpc.choices import Service
from mlflow_grpc.errors import PermissionDenied

MAX_PERMITS = 10_000
"""Maximum number of callers whose permits are kept. JWTs can have any number of subjects."""


class Named(Protocol):
    """A model with a name and a version."""

    name: str
    version: str


NamedT = TypeVar("NamedT", bound=Named)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule with its patterns compiled."""

    callers: tuple[Matcher, ...]
    models: tuple[Matcher, ...]
    services: frozenset[Service]

    @classmethod
    def of(cls, rule: AccessRule) -> "Rule":
        """Compiles a rule of a configuration file."""
        callers, models = (tuple(map(matcher_of, patterns)) for patterns in (rule.callers, rule.models))
        return cls(callers, models, rule.allowed)


@dataclass(frozen=True, slots=True)
class Permit:
    """A recognized caller, and what it may do."""

    caller: str
    """Name of the caller, for log lines and spans."""
    rules: tuple[Rule, ...] | None = None
    """Rules for this caller; None if it may do everything."""
    when_refused: Callable[[], object] = lambda: None
    """Called for each refusal."""

    def allows(self, service: Service) -> bool:
        """Returns True if the caller may use a service, for at least some models."""
        return self.rules is None or any(service in rule.services for rule in self.rules)

    def allows_model(self, service: Service, name: str, version: str) -> bool:
        """Returns True if the caller may use a service for a model.

        Args:
            service: The service.
            name: Name of the model.
            version: Version of the model; a rule may name it as `name/version`.

        """
        labels = (name, f"{name}/{version}")
        return self.rules is None or any(
            service in rule.services and any(matches_any(rule.models, label) for label in labels) for rule in self.rules
        )

    def visible(self, service: Service, models: Iterable[NamedT]) -> list[NamedT]:
        """Returns the models for which the caller may use a service, in their order."""
        return [model for model in models if self.allows_model(service, model.name, model.version)]

    def check(self, service: Service) -> None:
        """Raises PermissionDenied if the caller may not use a service."""
        if not self.allows(service):
            raise self._refused(f"use the service {service.value}")

    def check_model(self, service: Service, name: str, version: str) -> None:
        """Raises PermissionDenied if the caller may not use a service for a model; see `allows_model`."""
        if not self.allows_model(service, name, version):
            verb = {Service.PREDICT: "call", Service.RELOAD: "reload"}.get(service, "see")
            raise self._refused(f"{verb} the model {name}")

    def _refused(self, what: str) -> PermissionDenied:
        self.when_refused()
        return PermissionDenied(
            f"The caller {self.caller} may not {what}. The operator of the server allows it in the key access of the "
            "configuration file.",
            error_class="NOT_PERMITTED",
        )


class Permits:
    """The permits of all callers."""

    def __init__(self, rules: Sequence[AccessRule] | None, when_refused: Callable[[], object] = lambda: None) -> None:
        """Takes the rules of the configuration; None if it has no key `access`."""
        self._when_refused = when_refused
        self._rules = None if rules is None else tuple(map(Rule.of, rules))
        self._permits: dict[str, Permit] = {}

    def of(self, caller: str) -> Permit:
        """Returns the permit of a caller."""
        permit = self._permits.get(caller)
        if permit is None:
            rules = self._rules
            of_caller = None if rules is None else tuple(rule for rule in rules if matches_any(rule.callers, caller))
            if len(self._permits) >= MAX_PERMITS:
                del self._permits[next(iter(self._permits))]
            permit = self._permits[caller] = Permit(caller, of_caller, self._when_refused)
        return permit
