"""Formats of log lines: for people on a terminal, JSON otherwise.

Rule of this module: one record is one line, and nothing in it can look like another line or move the cursor. Control
characters are escaped. A traceback is part of its record: in JSON it stays on the line, for people it follows indented.
"""

import json
import logging
import time
import traceback
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from mlflow_grpc.naming import without_secrets

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}

MAX_EXCEPTION_CHARACTERS = 10_000
"""Maximum length of an exception's text. The event loop formats it and answers no calls meanwhile."""


def escape(text: str) -> str:
    """Escapes control characters, line separators and lone surrogates."""
    return text.encode(errors="backslashreplace").decode().translate(_ESCAPES)


class _Formatter(logging.Formatter):
    """Base of both formats."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name for it
        """Formats a traceback and shortens the exceptions' texts, because models put whole payloads into them."""
        summary: Any = traceback.TracebackException(*ei)
        pending = [summary]
        while pending:
            exception = pending.pop()
            # Before it is formatted, which takes 0.1 s for a megabyte of short lines.
            exception._str = _shortened(exception._str)  # noqa: SLF001 - no public attribute has it
            pending += filter(None, (exception.__cause__, exception.__context__, *(exception.exceptions or ())))
        return without_secrets("".join(summary.format()).rstrip("\n"))


def _shortened(text: str) -> str:
    excess = len(text) - MAX_EXCEPTION_CHARACTERS
    return f"{text[:MAX_EXCEPTION_CHARACTERS]}... and {excess} more characters" if excess > 0 else text


class JsonFormatter(_Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, the record's fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats a record as a line."""
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


# ASCII only: all other characters are escaped.
_encode = json.JSONEncoder(default=repr, check_circular=False, separators=(",", ":")).encode


@lru_cache(maxsize=2)
def _utc_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class TextFormatter(_Formatter):
    """`time LEVEL message key=value ...`, in local time."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats a record as a line, followed by the lines of its traceback."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = getattr(record, "fields", {})
        pairs = "".join(f" {key}={_quoted(value)}" for key, value in fields.items() if value != "")
        message = escape(without_secrets(record.getMessage()))
        line = f"{clock}.{int(record.msecs):03d} {record.levelname:<7} {message}{pairs}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line += "".join(f"\n    {escape(trace_line)}" for trace_line in trace)
        return line


def _quoted(value: Any) -> str:
    text = escape(str(value))
    return f'"{text}"' if " " in text else text
