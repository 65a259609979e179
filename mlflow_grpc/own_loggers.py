"""The server's own loggers, which nobody else's logging setup reaches.

Rule of this module: it imports nothing of the package, and every module of the server takes its logger from here.

`logging` keeps one tree of loggers for the whole process. Model code may disable all of it (`dictConfig` with Python's
default `disable_existing_loggers`, `logging.disable`), set the level of each logger or give it other handlers (the
recipe of loguru). The server's loggers are a tree of their own. Until `detach` is called their records go to the
loggers of the same names in Python's tree, as for any library.
"""

import logging

TOP = __name__.partition(".")[0]
"""The logger above all loggers of the server."""


class _ToPythonsTree(logging.Handler):
    """Hands records to the loggers of the same names in Python's tree."""

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
    """The server's logger of a name such as `mlflow_grpc.engine.loading`."""
    return _tree.getLogger(name)


def handlers() -> list[logging.Handler]:
    """Those that all of the server's records come to."""
    return list(get_logger(TOP).handlers)


def detach() -> None:
    """Gives the server's loggers the levels, handlers and filters that those of Python's tree have now, for good.

    Called when logging has been set up. What is changed in Python's tree later has no effect on the server's records.
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
