"""The server's own loggers, which are out of reach of other logging setups.

Rule of this module: it imports nothing from the package, and every module of the server gets its logger here.

`logging` keeps one tree of loggers per process. Model code may disable all of it (`dictConfig` with Python's default
`disable_existing_loggers`, `logging.disable`), set the level of each logger or replace its handlers (loguru's recipe).
The server's loggers therefore form a separate tree. Until `detach` is called, their records go to the loggers of the
same names in Python's tree, as for any library.
"""

import logging

TOP = __name__.partition(".")[0]
"""Root of the server's loggers."""


class _ToPythonsTree(logging.Handler):
    """Handler that passes records to the loggers of the same names in Python's tree."""

    def handle(self, record: logging.LogRecord) -> bool:
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
        return True


_root = logging.RootLogger(logging.NOTSET)
_tree = logging.Manager(_root)
_tree.loggerClass = logging.Logger
_root.manager = _tree
_root.addHandler(_ToPythonsTree())


def get_logger(name: str) -> logging.Logger:
    """Returns the server's logger with a name such as `mlflow_grpc.engine.loading`."""
    return _tree.getLogger(name)


def handlers() -> list[logging.Handler]:
    """Returns the handlers that receive all of the server's records."""
    return list(get_logger(TOP).handlers)


def detach() -> None:
    """Copies levels, handlers and filters from Python's tree once, and separates the server's loggers from it.

    Called when logging has been set up. Later changes in Python's tree do not affect the server's records.
    """
    root = logging.getLogger()
    for name in (TOP, *(name for name in list(logging.root.manager.loggerDict) if name.startswith(f"{TOP}."))):
        named, detached = logging.getLogger(name), get_logger(name)
        detached.setLevel(named.level)
        detached.handlers[:], detached.filters[:], detached.propagate = named.handlers, named.filters, named.propagate
    top = get_logger(TOP)
    top.setLevel(logging.getLogger(TOP).getEffectiveLevel())
    if top.propagate:
        top.handlers += [handler for handler in root.handlers if handler not in top.handlers]
    top.propagate = False
