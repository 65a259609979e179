"""Warnings of what a model ignores of a payload: names that its signature does not have.

Rule of this module: each name once for each client and model. What is remembered is bounded.
"""

import inspect
import warnings
from typing import Any

from mlflow_grpc_client import _wire

MOST_REMEMBERED = 10_000

_PACKAGE = __name__.partition(".")[0]


class IgnoredColumns(UserWarning):
    """The model ignores columns or params of a payload, since its signature does not have them."""


class Warner:
    """Warns of the names in the trailers of one client's calls."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()

    def warn(self, trailers: Any, model: str) -> None:
        """Warns of the names in some trailers of which it has not warned before.

        Args:
            trailers: Keys and values, or None.
            model: What the call names the model, empty if it names none.

        """
        for key, value in trailers or ():
            if key == _wire.IGNORED_KEY:
                names, more = _wire.ignored_columns(value)
                self._warn_of([name for name in names if (model, name) not in self._known], more, model)

    def _warn_of(self, names: list[str], more: int, model: str) -> None:
        if not names:
            return
        if len(self._known) + len(names) <= MOST_REMEMBERED:
            self._known.update((model, name) for name in names)
        listed = ", ".join(map(repr, names)) + (f" and {more} more" if more else "")
        which = f"the model {model}" if model else "the model"
        warnings.warn(f"{which} does not have and ignores {listed}", IgnoredColumns, stacklevel=_depth_of_caller())


def _depth_of_caller() -> int:
    """How far up the first frame is that is not of this package, as `warnings.warn` in this module counts."""
    depth, frame = 0, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == _PACKAGE:
        depth, frame = depth + 1, frame.f_back
    return depth
