"""Warnings of names in a payload that the model ignores, because its signature does not have them.

Rule of this module: a client warns once for each name and model, and remembers a bounded number of names.
"""

import inspect
import warnings
from typing import Any

from _mlflow_grpc_protocol.metadata import IGNORED_KEY

from mlflow_grpc_client import _wire

MAX_REMEMBERED = 10_000
"""Maximum number of names a client remembers."""

_PACKAGE = __name__.partition(".")[0]


class IgnoredColumns(UserWarning):
    """The model ignores columns or params of a payload, because its signature does not have them."""


def warn(trailers: Any, model: str, warned: set[tuple[str, str]]) -> None:
    """Warns of the names in the trailers of a call that are not in `warned`, and adds them to it."""
    for key, value in trailers or ():
        if key == IGNORED_KEY:
            names, more = _wire.ignored_columns(value)
            _warn_of([name for name in names if (model, name) not in warned], more, model, warned)


def _warn_of(names: list[str], more: int, model: str, warned: set[tuple[str, str]]) -> None:
    if not names:
        return
    if len(warned) + len(names) <= MAX_REMEMBERED:
        warned.update((model, name) for name in names)
    listed = ", ".join(map(repr, names)) + (f" and {more} more" if more else "")
    subject = f"the model {model}" if model else "the model"
    warnings.warn(f"{subject} does not have and ignores {listed}", IgnoredColumns, stacklevel=_depth_of_caller())


def _depth_of_caller() -> int:
    """The `stacklevel` for `warnings.warn` of the first frame outside this package."""
    depth, frame = 0, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == _PACKAGE:
        depth, frame = depth + 1, frame.f_back
    return depth
