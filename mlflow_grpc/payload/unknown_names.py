"""Treatment of names in a request that the model does not have: of columns, params and fields.

Rule of this module: it handles names only, not the values under them. The caller chose the names, so they are returned
to the caller and never logged.
"""

import difflib
from collections.abc import Callable, Iterable

from mlflow_grpc.choices import UnknownColumns
from mlflow_grpc.errors import FieldViolation, InvalidPayload

PARAMS = "params."
"""Prefix of the name of a param."""

MAX_NAMES = 16
"""Maximum number of names in a refusal."""

MAX_CHARACTERS, MAX_COMPARED = 64, 256
"""Maximum characters of a name that a refusal repeats, and that are compared with the declared names."""


class Unknown:
    """Treatment of the names that one model does not have."""

    def __init__(
        self,
        declared: Iterable[str],
        treatment: UnknownColumns = UnknownColumns.IGNORE,
        *,
        hides_declared: Callable[[], bool] = lambda: False,
    ) -> None:
        """Takes the names that the model has.

        Args:
            declared: Names of its columns and fields; names of its params as `params.<name>`.
            treatment: Ignores or refuses unknown names.
            hides_declared: Returns True if refusals must not contain names that the model has.

        """
        self._declared = list(declared)
        self._hides_declared = hides_declared
        self._refuses = treatment is UnknownColumns.REFUSE

    def check(self, names: Iterable[str], *, is_refused_anyway: bool = False) -> tuple[str, ...]:
        """Returns unknown names in their order without duplicates.

        Args:
            names: The unknown names.
            is_refused_anyway: True if another refusal follows, which explains more: CSV without names, a valid payload.

        Raises:
            InvalidPayload: Unknown names are refused; the error has a similar declared name for each if there is one.

        """
        unique = tuple(dict.fromkeys(names))
        if unique and self._refuses and not is_refused_anyway:
            raise self._refusal(unique)
        return unique

    def _refusal(self, names: tuple[str, ...]) -> InvalidPayload:
        violations = [FieldViolation(_shortened(name), self._description(name)) for name in names[:MAX_NAMES]]
        listed = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        more = f"; and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        text = "The payload has columns or params that the model does not have, and this server refuses them"
        return InvalidPayload(
            f"{text}. {listed}{more}.",
            reason="INVALID_PARAMETER_VALUE",
            error_class="SCHEMA_ENFORCEMENT_FAILED",
            violations=tuple(violations),
            logged=f"{text}: {len(names)} of them.",
        )

    def _description(self, name: str) -> str:
        close = [] if self._hides_declared() else difflib.get_close_matches(name[:MAX_COMPARED], self._declared, n=1)
        noun = "param" if name.startswith(PARAMS) else "column"
        return f"the model has no such {noun}{f'; did you mean {close[0]}?' if close else ''}"


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_CHARACTERS else f"{name[:MAX_CHARACTERS]}…"
