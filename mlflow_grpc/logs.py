"""Log lines: for people on a terminal, JSON otherwise.

Rule of this module: one record is one line, and nothing in it can look like another line or move the
cursor: control characters are escaped. A traceback is part of its record; in JSON it stays on the line,
for people it follows indented.
"""

import atexit
import contextlib
import json
import logging
import logging.config
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TextIO

import orjson

from mlflow_grpc import own_loggers, root_logger
from mlflow_grpc.errors import StartError
from mlflow_grpc.line_writer import LineWriter
from mlflow_grpc.naming import without_secrets
from mlflow_grpc.settings import LogFormat, LogLevel

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}

MOST_NOTES = 64
"""How many calls wait at the most until lines are made of them."""

MOST_CHARACTERS = 10_000
"""How much of what an exception says is written; the event loop writes it, and answers nobody meanwhile."""


def escape(text: str) -> str:
    """Text without control characters, line separators and lone surrogates."""
    return text.encode(errors="backslashreplace").decode().translate(_ESCAPES)


_NOT_ASKED_FOR = vars(logging.makeLogRecord({}))


class FieldsRecord(logging.LogRecord):
    """A record that is made of fields, one for each call of the server.

    It leaves out what LogRecord finds out and nobody asks for: the line of code, the process and the thread. That
    costs several times what all the rest of the record does.
    """

    def __init__(
        self, name: str, created: float, level: int, message: str, fields: dict[str, Any], cause: BaseException | None
    ) -> None:
        """Args:
        name: The logger's name.
        created: When, in seconds since 1970.
        level: Its level.
        message: What stands before the fields.
        fields: Names and values.
        cause: The exception whose traceback goes along.
        """
        self.__dict__.update(_NOT_ASKED_FOR)
        self.name = name
        self.levelno = level
        self.levelname = logging.getLevelName(level)
        self.msg = message
        self.created = created
        self.msecs = created % 1 * 1000
        self.exc_info = (type(cause), cause, cause.__traceback__) if cause is not None else None
        self.fields = fields


class CallLog:
    """The log of calls: takes a note when a call ends, and makes records of notes later, many at a time.

    Done for each call when it ends, between all the other things that are done then, the same takes several times as
    long. Every record of another logger comes after the notes that were taken before it.
    """

    def __init__(self, name: str) -> None:
        self._logger = own_loggers.get_logger(name)
        self._forget()
        os.register_at_fork(after_in_child=self._forget)  # The parent makes records of what it has noted.

    def _forget(self) -> None:
        self._turn = threading.RLock()
        self._notes: deque[tuple[float, int, str, dict[str, Any], BaseException | None]] = deque()

    def takes(self, level: int) -> bool:
        """Whether notes of this level are asked for."""
        return self._logger.isEnabledFor(level)

    def write(self, level: int, message: str, fields: dict[str, Any], cause: BaseException | None = None) -> None:
        """Takes a note.

        Args:
            level: Its level; errors are written at once.
            message: What stands before the fields.
            fields: Names and values.
            cause: The exception whose traceback goes along.

        """
        self._notes.append((time.time(), level, message, fields, cause))
        if level > logging.WARNING or len(self._notes) >= MOST_NOTES:
            self.flush()

    def flush(self) -> None:
        """Makes records of the notes, unless another thread is at it.

        It never waits for a lock of its own: it may be called by a handler that holds another one.
        """
        if not self._turn.acquire(blocking=False):
            return
        try:
            while self._notes:
                record = FieldsRecord(self._logger.name, *self._notes.popleft())
                try:
                    self._logger.handle(record)
                except Exception:  # noqa: BLE001 - of a handler that the owner has set up; it must not end a call
                    _fallback.handleError(record)
        finally:
            self._turn.release()


_fallback = logging.Handler()  # Tells on stderr, as logging does, that a handler failed.

calls = CallLog("mlflow_grpc.call")


class _Formatter(logging.Formatter):
    """What both formats have in common."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name for it
        """A traceback, in which no exception says more than it may: models put whole payloads into their errors."""
        told: Any = traceback.TracebackException(*ei)
        parts = [told]
        while parts:
            part = parts.pop()
            # Before it is formatted, which takes 0.1 s for a megabyte of short lines.
            part._str = _shortened(part._str)  # noqa: SLF001 - there is no other way to it
            parts += filter(None, (part.__cause__, part.__context__, *(part.exceptions or ())))
        return without_secrets("".join(told.format()).rstrip("\n"))


def _shortened(text: str) -> str:
    more = len(text) - MOST_CHARACTERS
    return f"{text[:MOST_CHARACTERS]}... and {more} more characters" if more > 0 else text


class JsonFormatter(_Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, the record's fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line: dict[str, Any] = {
            "time": f"{_utc_second(int(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return _non_ascii_escaped(orjson.dumps(line, default=repr).decode())
        except TypeError:  # A lone surrogate, an integer past 64 bits.
            return _encode(line)


def _non_ascii_escaped(line: str) -> str:
    return line if line.isascii() and "\x7f" not in line else _encode(orjson.loads(line))


# ASCII: whatever is no plain character is escaped.
_encode = json.JSONEncoder(default=repr, check_circular=False, separators=(",", ":")).encode


@lru_cache(maxsize=2)
def _utc_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class TextFormatter(_Formatter):
    """`time LEVEL message key=value ...`, in local time."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line, and the lines of its traceback."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = getattr(record, "fields", {})
        pairs = "".join(f" {key}={_quoted(value)}" for key, value in fields.items() if value != "")
        message = escape(without_secrets(record.getMessage()))
        line = f"{clock}.{int(record.msecs):03d} {record.levelname:<7} {message}{pairs}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line += "".join(f"\n    {escape(part)}" for part in trace)
        return line


def _quoted(value: Any) -> str:
    text = escape(str(value))
    return f'"{text}"' if " " in text else text


class LineHandler(logging.Handler):
    """Writes the lines of calls in groups, some times a second, and errors and all other lines at once.

    A write for each call costs as much as all the rest of its log line. Lines keep their order; a process that is
    killed loses those of the last moment.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._writer = LineWriter(stream, prepare=calls.flush, tell_lost=self._told_of_lost)

    def handle(self, record: logging.LogRecord) -> bool:
        """Takes a record, and before it what is noted of calls: without the handler's lock, since others are needed."""
        if not isinstance(record, FieldsRecord):
            calls.flush()
            self._writer.wait_for_room()
        return bool(super().handle(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a record; called with the handler's lock held."""
        can_wait = isinstance(record, FieldsRecord) and record.levelno <= logging.WARNING
        try:
            self._writer.put(self.format(record), soon=not can_wait)
        except Exception:  # noqa: BLE001 - logging's own way with a record that cannot be written
            self.handleError(record)

    def flush(self) -> None:
        """Writes what is waiting, unless nobody reads it."""
        calls.flush()
        self._writer.flush()

    def _told_of_lost(self, count: int) -> str:
        message = "log lines were lost here, since nobody read those before them"
        record = FieldsRecord(__name__, time.time(), logging.WARNING, message, {"lines": count}, None)
        self.filter(record)
        return self.format(record)


class _Worker(logging.Filter):
    """Adds the worker's number to each record."""

    def __init__(self, worker: int) -> None:
        super().__init__()
        self._worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        record.fields = {"worker": self._worker, **getattr(record, "fields", {})}
        return True


def uses_json(log_format: LogFormat) -> bool:
    """Whether lines are JSON: as told, or if not, when nobody sits at a terminal."""
    return log_format is LogFormat.JSON or (log_format is LogFormat.AUTO and not sys.stderr.isatty())


class _LibraryLevel(logging.Filter):
    """Keeps back what models and libraries log below a level, whatever level they set for their own loggers.

    Loggers that the configuration file names are the owner's choice, and pass.
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
        log_format: For people or for collectors.
        level: The least severe level of the server's own records that is written.
        libraries: The least severe level of all other records that is written; MLflow's server has the same default.
        worker: The number of this process among several; each line then tells it.
        extra: What the owner wants besides, for `logging.config.dictConfig`.

    Raises:
        StartError: `extra` is no such thing.

    """
    handler = LineHandler(sys.stderr)
    # logging does so itself, but forgets the handlers that it knows when it is given another configuration.
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
    # Our lines do not show them, and to find them out takes system calls for each record.
    logging.logProcesses = logging.logThreads = logging.logMultiprocessing = False
    if extra is not None:
        try:
            # Loggers that it does not name stay as they are; by default dictConfig silences them.
            logging.config.dictConfig({"disable_existing_loggers": False, **extra})
        except (ValueError, TypeError, AttributeError, ImportError) as error:
            raise StartError(f"logging in the configuration file: {' '.join(str(error).split())}") from error
    own_loggers.detach()
    root_logger.remember()


def flush() -> None:
    """Writes the lines that are waiting."""
    for handler in {*own_loggers.handlers(), *logging.getLogger().handlers}:
        handler.flush()


def announce(message: str, log_format: LogFormat, stream: TextIO) -> None:
    """Writes one line in the format of the log for whoever waits for it.

    Args:
        message: Its text.
        log_format: As for `configure`.
        stream: Where to: what stdout was before models were loaded, which may have put another one in its place.

    """
    record = logging.LogRecord("mlflow_grpc", logging.INFO, "", 0, message, (), None)
    formatter = JsonFormatter() if uses_json(log_format) else TextFormatter()
    with contextlib.suppress(OSError, ValueError):  # Closed: nobody waits.
        print(formatter.format(record), file=stream, flush=True)


def adopt(names: tuple[str, ...] = ("mlflow", "alembic")) -> None:
    """Takes away the handlers and levels that libraries set up for themselves, so that their records come in our format
    and from the level that is set for libraries. Also puts back what they did to all loggers.
    """
    root_logger.put_back()
    for name in names:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.NOTSET)


def quiet(names: tuple[str, ...]) -> None:
    """Keeps only the errors of loggers that write what callers sent, once a call."""
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
