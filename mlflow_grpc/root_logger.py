"""The root logger, through which the lines of libraries and models go, as the server has set it up.

Rule of this module: it imports nothing of the package. The server's own lines do not depend on it (`own_loggers`).
"""

import logging
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Setup:
    """What models may have changed and libraries' lines depend on."""

    handlers: tuple[logging.Handler, ...]
    filters: tuple[Any, ...]
    level: int
    disabled: frozenset[str]


_set_up: _Setup | None = None
"""How `remember` has found it; None before that."""


def _disabled() -> frozenset[str]:
    known = list(logging.root.manager.loggerDict.items())
    return frozenset(name for name, each in known if isinstance(each, logging.Logger) and each.disabled)


def remember() -> None:
    """Notes how the root logger is now, for `put_back`."""
    global _set_up  # noqa: PLW0603 - as there is one root logger
    root = logging.getLogger()
    _set_up = _Setup(tuple(root.handlers), tuple(root.filters), root.level, _disabled())


def put_back() -> None:
    """Undoes what a model has done to the lines of libraries and other models: the root logger's handlers, filters and
    level, loggers that it disabled, captured warnings. A handler that it added stays, unless it writes to the terminal.

    Does nothing before `remember` has been called.
    """
    if _set_up is None:
        return
    root = logging.getLogger()
    added = [each for each in root.handlers if each not in _set_up.handlers and not _writes_to_terminal(each)]
    if root.handlers != (wanted := [*_set_up.handlers, *added]):
        root.handlers[:] = wanted
    if root.filters != (filters := list(_set_up.filters)):
        root.filters[:] = filters
    if root.level != _set_up.level:
        root.setLevel(_set_up.level)
    if root.manager.disable:
        logging.disable(logging.NOTSET)
    for name in _disabled() - _set_up.disabled:
        logging.getLogger(name).disabled = False
    logging.captureWarnings(True)


def _writes_to_terminal(handler: logging.Handler) -> bool:
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return isinstance(handler, logging.StreamHandler) and any(handler.stream is each for each in streams)
