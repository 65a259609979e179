"""What becomes of names in a request that the model does not have: of columns, params and fields.

Rule of this module: it knows names and nothing of where they stand. They are the caller's own: they go back to the
caller and into no log.
"""

import difflib
from collections.abc import Callable, Iterable

from mlflow_grpc.choices import UnknownColumns
from mlflow_grpc.errors import FieldViolation, InvalidPayload

PARAMS = "params."
"""What stands before the name of a param."""

MOST_NAMED = 16
"""How many names one refusal holds."""

MOST_CHARACTERS, MOST_COMPARED = 64, 256
"""How much of a name is in a refusal, and how much of it is compared with those that there are."""


class Unknown:
    """What becomes of the names that one model does not have."""

    def __init__(
        self,
        known: Iterable[str],
        treatment: UnknownColumns = UnknownColumns.IGNORE,
        *,
        hides_known: Callable[[], bool] = lambda: False,
    ) -> None:
        """Args:
        known: The names that it has; params as `params.<name>`.
        treatment: Whether the others are ignored or refused.
        hides_known: Whether names that it has are kept out of refusals.
        """
        self._known = list(known)
        self._hides_known = hides_known
        self._refuses = treatment is UnknownColumns.REFUSE

    def told(self, names: Iterable[str]) -> tuple[str, ...]:
        """The names, each once and in their order.

        Raises:
            InvalidPayload: They are to be refused; it has the names and for each the one that may have been meant.

        """
        found = tuple(dict.fromkeys(names))
        if found and self._refuses:
            raise self._refusal(found)
        return found

    def _refusal(self, names: tuple[str, ...]) -> InvalidPayload:
        violations = [FieldViolation(_shortened(name), self._words(name)) for name in names[:MOST_NAMED]]
        listed = "; ".join(f"{each.field}: {each.description}" for each in violations)
        more = f"; and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        text = "The payload has columns or params that the model does not have, and this server refuses them"
        return InvalidPayload(
            f"{text}. {listed}{more}.",
            reason="INVALID_PARAMETER_VALUE",
            error_class="SCHEMA_ENFORCEMENT_FAILED",
            violations=tuple(violations),
            logged=f"{text}: {len(names)} of them.",
        )

    def _words(self, name: str) -> str:
        close = [] if self._hides_known() else difflib.get_close_matches(name[:MOST_COMPARED], self._known, n=1)
        kind = "param" if name.startswith(PARAMS) else "column"
        return f"the model has no such {kind}{f'; did you mean {close[0]}?' if close else ''}"


def _shortened(name: str) -> str:
    return name if len(name) <= MOST_CHARACTERS else f"{name[:MOST_CHARACTERS]}…"
