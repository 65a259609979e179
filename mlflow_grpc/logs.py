"""Log lines: for people on a terminal, JSON otherwise.

Rule of this module: one record is one line, and nothing in it can look like another line or move the
cursor: control characters are escaped. A traceback is part of its record; in JSON it stays on the line,
for people it follows indented.
"""

import contextlib
import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any

from mlflow_grpc.settings import LogFormat, LogLevel

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def escape(text: str) -> str:
    """Text without control characters, line separators and lone surrogates."""
    return text.encode(errors="backslashreplace").decode().translate(_ESCAPES)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, the record's fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=repr)  # ASCII: whatever is no plain character is escaped.


class TextFormatter(logging.Formatter):
    """`time LEVEL message key=value ...`, in local time."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line, and the lines of its traceback."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = getattr(record, "fields", {})
        pairs = "".join(f" {key}={_quoted(value)}" for key, value in fields.items() if value != "")
        line = f"{clock}.{int(record.msecs):03d} {record.levelname:<7} {escape(record.getMessage())}{pairs}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line += "".join(f"\n    {escape(part)}" for part in trace)
        return line


def _quoted(value: Any) -> str:
    text = escape(str(value))
    return f'"{text}"' if " " in text else text


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


def configure(log_format: LogFormat, level: LogLevel, *, worker: int | None = None) -> None:
    """Sends every log record of the process, warnings included, to stderr in one format.

    Args:
        log_format: For people or for collectors.
        level: The least severe level that is written.
        worker: The number of this process among several; each line then tells it.

    """
    handler = logging.StreamHandler(sys.stderr)
    if worker is not None:
        handler.addFilter(_Worker(worker))
    handler.setFormatter(JsonFormatter() if uses_json(log_format) else TextFormatter())
    logging.basicConfig(handlers=[handler], level=level.value.upper(), force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # A full disk or a closed pipe must not cost an answer.


def announce(message: str, log_format: LogFormat) -> None:
    """Writes one line to stdout, in the format of the log, for whoever waits for it there."""
    record = logging.LogRecord("mlflow_grpc", logging.INFO, "", 0, message, (), None)
    formatter = JsonFormatter() if uses_json(log_format) else TextFormatter()
    with contextlib.suppress(OSError, ValueError):  # Closed: nobody waits.
        print(formatter.format(record), flush=True)


def adopt(names: tuple[str, ...] = ("mlflow", "alembic")) -> None:
    """Takes away the handlers that libraries set up for themselves, so that their records come in our format."""
    for name in names:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True


def quiet(names: tuple[str, ...]) -> None:
    """Keeps only the errors of loggers that write what callers sent, once a call."""
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
