"""State of the root logger, which handles the records of libraries and models.

Rule of this module: it imports nothing from the package. The server's own records do not depend on it (`own_loggers`).
"""

import logging
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Setup:
    """State of Python's logging that models may change."""

    handlers: tuple[logging.Handler, ...]
    filters: tuple[Any, ...]
    level: int
    disabled: frozenset[str]


_set_up: _Setup | None = None
"""State at the time of `remember`; None before that."""


def _disabled() -> frozenset[str]:
    loggers = list(logging.root.manager.loggerDict.items())
    return frozenset(name for name, logger in loggers if isinstance(logger, logging.Logger) and logger.disabled)


def remember() -> None:
    """Saves the state of the root logger for `restore`."""
    global _set_up  # noqa: PLW0603 - there is one root logger
    root = logging.getLogger()
    _set_up = _Setup(tuple(root.handlers), tuple(root.filters), root.level, _disabled())


def restore() -> None:
    """Undoes a model's changes to the logging of libraries and other models.

    These are the root logger's handlers, filters and level, disabled loggers, and captured warnings. A handler that a
    model added stays, unless it writes to the terminal. Does nothing before `remember` has been called.
    """
    if _set_up is None:
        return
    root = logging.getLogger()
    added = [
        handler for handler in root.handlers if handler not in _set_up.handlers and not _writes_to_terminal(handler)
    ]
    if root.handlers != (handlers := [*_set_up.handlers, *added]):
        root.handlers[:] = handlers
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
    return isinstance(handler, logging.StreamHandler) and any(handler.stream is stream for stream in streams)
