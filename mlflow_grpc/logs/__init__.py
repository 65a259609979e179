"""Logging of a server: its setup, the log of calls, and what models and libraries may do to it.

Rule of this module: it sets up Python's logging and nothing else. What a line looks like is in `format`, how it gets to
stderr in `handler` and `line_writer`, and the log of calls in `call_log`.
"""

import atexit
import contextlib
import logging
import logging.config
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from mlflow_grpc import own_loggers, root_logger
from mlflow_grpc.choices import LogFormat, LogLevel
from mlflow_grpc.errors import StartError
from mlflow_grpc.logs.call_log import calls
from mlflow_grpc.logs.format import JsonFormatter, TextFormatter, escape
from mlflow_grpc.logs.handler import LineHandler

__all__ = ["adopt", "announce", "calls", "configure", "escape", "flush", "last_line", "quiet", "uses_json"]


class _Worker(logging.Filter):
    """Adds the worker's number to each record."""

    def __init__(self, worker: int) -> None:
        super().__init__()
        self._worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        record.fields = {"worker": self._worker, **getattr(record, "fields", {})}
        return True


def uses_json(log_format: LogFormat) -> bool:
    """Returns True if lines are JSON: by the setting, or with `auto` if stderr is no terminal."""
    return log_format is LogFormat.JSON or (log_format is LogFormat.AUTO and not sys.stderr.isatty())


class _LibraryLevel(logging.Filter):
    """Drops records of models and libraries below a level, whatever level they set for their own loggers.

    Records of loggers that the configuration file names pass.
    """

    def __init__(self, level: int, configured: Iterable[str]) -> None:
        super().__init__()
        self._level = level
        self._passing = (own_loggers.TOP, *configured)

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self._level or any(
            record.name == name or record.name.startswith(f"{name}.") for name in self._passing
        )


def configure(
    log_format: LogFormat,
    level: LogLevel,
    *,
    libraries: LogLevel = LogLevel.WARNING,
    worker: int | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Sends the log records of the process, warnings included, to stderr in one format.

    Args:
        log_format: Format for people or for collectors.
        level: Minimum level of the server's own records.
        libraries: Minimum level of all other records; MLflow's server has the same default.
        worker: Number of this process among several workers; each line then has it.
        extra: The owner's configuration for `logging.config.dictConfig`.

    Raises:
        StartError: `extra` is invalid.

    """
    handler = LineHandler(sys.stderr, calls)
    # logging flushes at exit too, but forgets its handlers when it gets another configuration.
    atexit.register(handler.flush)
    if worker is not None:
        handler.addFilter(_Worker(worker))
    handler.setFormatter(JsonFormatter() if uses_json(log_format) else TextFormatter())
    handler.addFilter(
        _LibraryLevel(logging.getLevelNamesMapping()[libraries.upper()], (extra or {}).get("loggers") or ())
    )
    logging.basicConfig(handlers=[handler], level=libraries.upper(), force=True)
    logging.getLogger(own_loggers.TOP).setLevel(level.upper())
    logging.captureWarnings(True)
    # Our lines do not show them, and finding them out takes system calls for each record.
    logging.logProcesses = logging.logThreads = logging.logMultiprocessing = False
    if extra is not None:
        try:
            # Loggers that it does not name stay enabled; by default dictConfig disables them.
            logging.config.dictConfig({"disable_existing_loggers": False, **extra})
        except (ValueError, TypeError, AttributeError, ImportError) as error:
            raise StartError(f"logging in the configuration file: {' '.join(str(error).split())}") from error
    own_loggers.detach()
    root_logger.remember()


def flush() -> None:
    """Writes all queued lines."""
    for handler in {*own_loggers.handlers(), *logging.getLogger().handlers}:
        handler.flush()


def announce(message: str, log_format: LogFormat, stream: TextIO) -> None:
    """Writes one line in the format of the log, for programs that wait for it.

    Args:
        message: Text of the line.
        log_format: As in `configure`.
        stream: Standard output as it was before models were loaded, because a model may replace it.

    """
    record = _record(logging.INFO, message)
    formatter = JsonFormatter() if uses_json(log_format) else TextFormatter()
    with contextlib.suppress(OSError, ValueError):  # The stream is closed, so no program waits.
        print(formatter.format(record), file=stream, flush=True)


def last_line(level: int, message: str, log_format: LogFormat) -> str:
    """Returns a line about a server that cannot start, before or after the log is configured.

    Args:
        level: `logging.WARNING` or `logging.CRITICAL`.
        message: Text of the line.
        log_format: As in `configure`. For people the line begins with `Error:`, as the errors of other commands do.

    """
    if uses_json(log_format):
        return JsonFormatter().format(_record(level, message))
    return f"{'Error' if level == logging.CRITICAL else 'Warning'}: {escape(message)}"


def _record(level: int, message: str) -> logging.LogRecord:
    return logging.LogRecord(own_loggers.TOP, level, "", 0, message, (), None)


def adopt(names: tuple[str, ...] = ("mlflow", "alembic")) -> None:
    """Removes the handlers and levels that libraries set up for themselves, and restores the root logger.

    Their records then have the server's format and the level that is set for libraries.
    """
    root_logger.restore()
    for name in names:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.NOTSET)


def quiet(names: tuple[str, ...]) -> None:
    """Silences loggers, except for errors, that write payloads once a call."""
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
