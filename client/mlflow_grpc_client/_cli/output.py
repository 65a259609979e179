"""The output of `mlflow-grpc-predict`: answers on stdout, an error or warning as a line on stderr."""

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from mlflow_grpc_client import IgnoredColumns, InvalidInput, PredictError

EXIT_FAILED = 1


def printable(line: str) -> str:
    """A line with escapes for control characters."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in line)


def write(text: str) -> int:
    """Prints a line to stdout. Returns 0, or the exit code if writing fails."""
    return write_bytes(text.encode() + b"\n")


def write_bytes(data: bytes) -> int:
    """Writes bytes to stdout. Returns 0, or the exit code if writing fails."""
    if sys.stdout is None:
        complain("cannot write the answer: stdout is closed")
        return EXIT_FAILED
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    except OSError as error:
        # Python flushes again at exit, and would report the error a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # The reader closed the pipe on purpose, as `head` does.
            complain(f"cannot write the answer: {error.strerror}")
        return EXIT_FAILED
    return 0


def complain(text: str, severity: str = "error") -> None:
    """Prints one line to stderr, and escapes control characters in a server's text."""
    line = printable(text)
    with contextlib.suppress(OSError, ValueError):
        print(f"{severity}: {line}", file=sys.stderr)


def silence_grpc() -> None:
    """Keeps the log of gRPC's C core off stderr, unless GRPC_VERBOSITY is set, because the error line is clearer.

    The core writes to file descriptor 2, and reads GRPC_VERBOSITY at import, before any line of this module runs. So
    stderr moves to another descriptor.
    """
    if "GRPC_VERBOSITY" in os.environ or sys.stderr is None:
        return
    with contextlib.suppress(OSError):
        copy = os.dup(2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.stderr = os.fdopen(copy, "w", encoding=sys.stderr.encoding, errors="backslashreplace", buffering=1)


def one_line(answer: str) -> str:
    """Formats an answer as a line: a text of several lines becomes a JSON string."""
    return json.dumps(answer, ensure_ascii=False) if "\n" in answer or "\r" in answer else answer


def error_line(error: PredictError) -> str:
    """Formats an error as a line of JSON."""
    violations = [{"field": item.field, "description": item.description} for item in error.violations]
    texts = {
        "code": error.code.name, "message": error.message, "reason": error.reason, "error_class": error.error_class,
    }  # fmt: skip
    return json.dumps({"error": {**{key: text for key, text in texts.items() if text}, "violations": violations}})


@contextlib.contextmanager
def warnings_of_a_call() -> Iterator[None]:
    """Prints IgnoredColumns warnings as lines after a call.

    If the call is refused, the error is the only line, because it says what to correct.
    """
    texts: list[str] = []
    try:
        with warnings_as_lines(texts.append):
            yield
    except InvalidInput:
        texts.clear()
        raise
    finally:
        for text in texts:
            _warn(text)


def _warn(text: str) -> None:
    """Prints a warning as a line."""
    complain(text, "warning")


@contextlib.contextmanager
def warnings_as_lines(print_line: Callable[[str], object] = _warn) -> Iterator[None]:
    """Prints IgnoredColumns warnings as lines, without a location in this package's code."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", IgnoredColumns)
        show_other = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *location: Any) -> None:
            if issubclass(category, IgnoredColumns):
                print_line(str(message))
            else:
                show_other(message, category, *location)

        warnings.showwarning = show  # type: ignore[assignment]
        yield
