"""Log lines: one record a line, nothing in it can pass for another line."""

import io
import json
import logging
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_grpc import logs
from tests.support.servers import ROOT


def record(message, fields=None, exc_info=None):
    made = logging.LogRecord("mlflow_grpc", logging.INFO, "", 0, message, (), exc_info)
    if fields:
        made.fields = fields
    return made


@given(st.text(), st.dictionaries(st.text(), st.text() | st.integers() | st.none()))
def test_json_lines_are_one_line_and_parse(message, fields):
    """Whatever is logged is one JSON object on one line."""
    line = logs.JsonFormatter().format(record(message, {f"x{key}": value for key, value in fields.items()}))
    assert len(line.splitlines()) == 1
    json.loads(line)


@given(st.text(), st.text())
def test_text_lines_are_one_line_without_control_characters(message, value):
    """On a terminal, neither a new line nor an escape sequence gets through."""
    line = logs.TextFormatter().format(record(message, {"key": value}))
    assert len(line.splitlines()) == 1
    assert not [character for character in line if ord(character) < 32 or 127 <= ord(character) < 160]


def test_a_traceback_stays_with_its_record():
    """In JSON on its line, for people indented below it, control characters escaped in both."""
    try:
        raise ValueError("a\nFAKE\x1b[2J")
    except ValueError as error:
        made = record("failed", exc_info=(type(error), error, error.__traceback__))
    line = json.loads(logs.JsonFormatter().format(made))
    assert "ValueError" in line["exception"]
    first, *rest = logs.TextFormatter().format(made).splitlines()
    assert "failed" in first
    assert rest
    assert all(part.startswith("    ") for part in rest)
    assert "\x1b" not in "".join(rest)


@pytest.mark.parametrize("formatter", [logs.JsonFormatter(), logs.TextFormatter()])
def test_what_exceptions_say_is_shortened(formatter):
    """Each of a chain or a group, before it costs anything: the event loop writes the line."""
    long = "payload\n" * 1_000_000
    try:
        try:
            raise ValueError(long)
        except ValueError as error:
            raise ExceptionGroup("both", [KeyError(long), TypeError("short")]) from error
    except ExceptionGroup as group:
        made = record("failed", exc_info=(type(group), group, group.__traceback__))
    began = time.process_time()
    line = formatter.format(made)
    assert time.process_time() - began < 0.2
    assert line.count("more characters") == 2
    assert "TypeError: short" in line
    assert len(line) < 100_000


@pytest.mark.parametrize("value", ["\ud800", {"k": 1}, b"x", object()])
def test_odd_values_do_not_lose_the_line(value):
    """A value with no JSON form is still logged."""
    assert json.loads(logs.JsonFormatter().format(record("m", {"key": value})))["key"] is not None


@pytest.fixture
def log(monkeypatch):
    """A log of calls of its own, what it writes, and a logger beside it."""
    stream = io.StringIO()
    handler = logs.BufferedHandler(stream)
    handler.setFormatter(logs.TextFormatter())
    calls = logs.CallLog("test_logs.call")
    monkeypatch.setattr(logs, "calls", calls)
    loggers = [logging.getLogger("test_logs.call"), logging.getLogger("test_logs.other")]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    yield calls, loggers[0], loggers[1], stream
    for logger in loggers:
        logger.handlers, logger.propagate = [], True


def test_other_lines_come_after_the_calls_before_them(log):
    """Calls are noted and written later, but never after what happened after them."""
    calls, _, other, stream = log
    calls.write(logging.INFO, "call", {"number": 1})
    assert stream.getvalue() == ""
    other.info("between")
    calls.write(logging.INFO, "call", {"number": 2})
    calls.write(logging.ERROR, "call", {"number": 3})
    words = [line.split()[2:] for line in stream.getvalue().splitlines()]
    assert words == [["call", "number=1"], ["between"], ["call", "number=2"], ["call", "number=3"]]


def test_a_handler_that_fails_ends_no_call(log, capsys):
    """What an owner has set up may raise; the other lines are written, and stderr tells."""
    calls, logger, _, stream = log

    class Fails(logging.Handler):
        def emit(self, record):
            raise IndexError("collector away")

    logger.addHandler(Fails())
    for number in range(logs.MOST_NOTES):
        calls.write(logging.INFO, "call", {"number": number})
    calls.write(logging.ERROR, "call", {"number": "last"})
    assert len(stream.getvalue().splitlines()) == logs.MOST_NOTES + 1
    assert "collector away" in capsys.readouterr().err


def test_handlers_that_log_themselves_do_not_block_each_other(log):
    """An owner's handler that writes a line of another logger holds its own lock while it does."""
    calls, logger, other, _ = log
    both = threading.Barrier(2, timeout=10)

    class Talks(logging.Handler):
        def emit(self, record):
            other.info("emitting")

    talks = Talks()
    logger.addHandler(talks)

    def by_hand():
        talks.acquire()
        try:
            both.wait()
            other.info("from a thread")
        finally:
            talks.release()

    thread = threading.Thread(target=by_hand, daemon=True)
    thread.start()
    calls.write(logging.INFO, "call", {})
    both.wait()
    flusher = threading.Thread(target=calls.flush, daemon=True)
    flusher.start()
    for each in (thread, flusher):
        each.join(10)
        assert not each.is_alive()


def test_nothing_is_lost_at_the_end():
    """Also if the owner's configuration makes logging forget its handlers."""
    code = """
from mlflow_grpc import logs
from tests.support.servers import ROOT
from mlflow_grpc.settings import LogFormat, LogLevel
logs.configure(LogFormat.TEXT, LogLevel.INFO, extra={"version": 1})
for number in range(3):
    logs.calls.write(20, "call", {"number": number})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert [line.split()[-1] for line in done.stderr.splitlines()] == ["number=0", "number=1", "number=2"]
