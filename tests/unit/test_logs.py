"""Log lines: one record a line, nothing in it can pass for another line."""

import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_grpc import logs
from mlflow_grpc.logs import call_log, line_writer
from mlflow_grpc.logs import format as log_format
from mlflow_grpc.logs.handler import LineHandler
from tests.support.servers import ROOT


def record(message, fields=None, exc_info=None):
    log_record = logging.LogRecord("mlflow_grpc", logging.INFO, "", 0, message, (), exc_info)
    if fields:
        log_record.fields = fields
    return log_record


@given(st.text(), st.dictionaries(st.text(), st.text() | st.integers() | st.none()))
def test_json_lines_are_one_line_and_parse(message, fields):
    """Whatever is logged is one JSON object on one line."""
    line = log_format.JsonFormatter().format(record(message, {f"x{key}": value for key, value in fields.items()}))
    assert len(line.splitlines()) == 1
    json.loads(line)


@given(st.text(), st.text())
def test_text_lines_are_one_line_without_control_characters(message, value):
    """On a terminal, neither a new line nor an escape sequence gets through."""
    line = log_format.TextFormatter().format(record(message, {"key": value}))
    assert len(line.splitlines()) == 1
    assert not [character for character in line if ord(character) < 32 or 127 <= ord(character) < 160]


def test_a_traceback_stays_with_its_record():
    """In JSON on its line, for people indented below it, control characters escaped in both."""
    try:
        raise ValueError("a\nFAKE\x1b[2J")
    except ValueError as error:
        log_record = record("failed", exc_info=(type(error), error, error.__traceback__))
    line = json.loads(log_format.JsonFormatter().format(log_record))
    assert "ValueError" in line["exception"]
    first, *traceback_lines = log_format.TextFormatter().format(log_record).splitlines()
    assert "failed" in first
    assert traceback_lines
    assert all(text_line.startswith("    ") for text_line in traceback_lines)
    assert "\x1b" not in "".join(traceback_lines)


@pytest.mark.parametrize("formatter", [log_format.JsonFormatter(), log_format.TextFormatter()])
def test_what_exceptions_say_is_shortened(formatter):
    """Each of a chain or a group, before it costs anything: the event loop writes the line."""
    long = "payload\n" * 1_000_000
    try:
        try:
            raise ValueError(long)
        except ValueError as error:
            raise ExceptionGroup("both", [KeyError(long), TypeError("short")]) from error
    except ExceptionGroup as group:
        log_record = record("failed", exc_info=(type(group), group, group.__traceback__))
    began = time.process_time()
    line = formatter.format(log_record)
    assert time.process_time() - began < 0.2
    assert line.count("more characters") == 2
    assert "TypeError: short" in line
    assert len(line) < 100_000


@pytest.mark.parametrize("value", ["\ud800", {"k": 1}, b"x", object()])
def test_odd_values_do_not_lose_the_line(value):
    """A value with no JSON form is still logged."""
    assert json.loads(log_format.JsonFormatter().format(record("m", {"key": value})))["key"] is not None


class Pipe:
    """A pipe, and what has been written into it."""

    def __init__(self):
        self._descriptor, writing = os.pipe()
        self.stream = os.fdopen(writing, "w")
        self._data = b""

    def lines(self, count):
        """The next lines, once they are written."""
        while self._data.count(b"\n") < count:
            assert select.select([self._descriptor], [], [], 10)[0], "nothing more is written"
            self._data += os.read(self._descriptor, 1 << 20)
        *lines, self._data = self._data.split(b"\n", count)
        return [line.decode() for line in lines]

    def lines_in_words(self, count):
        """Those of the next lines, but for time and level."""
        return [line.split()[2:] for line in self.lines(count)]

    def is_empty(self):
        return not self._data and not select.select([self._descriptor], [], [], 0)[0]

    def stop_reading(self):
        os.close(self._descriptor)  # Ends a write that waits.


@contextlib.contextmanager
def piped(formatter, *names):
    """Loggers that write into a pipe, and a log of calls under the first one's name."""
    pipe = Pipe()
    loggers = [logging.getLogger(name) for name in names]
    with mock.patch.object(logs, "calls", call_log.CallLog(names[0])):
        handler = LineHandler(pipe.stream, logs.calls)
        handler.setFormatter(formatter)
        for logger in loggers:
            logger.handlers, logger.propagate = [handler], False
            logger.setLevel(logging.INFO)
        yield pipe, *loggers
    for logger in loggers:
        logger.handlers, logger.propagate = [], True
    pipe.stop_reading()
    handler.flush()
    pipe.stream.close()


@pytest.fixture
def log(monkeypatch):
    """A log of calls, its logger, another one, and the pipe that both write to."""
    monkeypatch.setattr(line_writer, "INTERVAL_S", 3600.0)  # What is written is written because it was asked for.
    with piped(log_format.TextFormatter(), "test_logs.call", "test_logs.other") as (pipe, logger, other_logger):
        yield logs.calls, logger, other_logger, pipe


def test_other_lines_come_at_once_after_the_calls_before_them(log):
    """Calls are noted and written later, but never after what happened after them; all else is written at once."""
    calls, _, other_logger, pipe = log
    calls.write(logging.INFO, "call", {"number": 1})
    other_logger.info("between")
    assert pipe.lines_in_words(2) == [["call", "number=1"], ["between"]]
    calls.write(logging.INFO, "call", {"number": 2})
    calls.write(logging.ERROR, "call", {"number": 3})
    assert pipe.lines_in_words(2) == [["call", "number=2"], ["call", "number=3"]]


def test_calls_are_written_in_groups(log):
    """One by one they would cost as much again."""
    calls, _, _, pipe = log
    for number in range(line_writer.MAX_LINES - 1):
        calls.write(logging.INFO, "call", {"number": number})
    assert pipe.is_empty()
    calls.write(logging.INFO, "call", {"number": "last"})
    assert pipe.lines_in_words(line_writer.MAX_LINES)[-1] == ["call", "number=last"]


def test_no_call_waits_long_to_be_written():
    """Also if it is the only one."""
    with piped(log_format.TextFormatter(), "test_logs.call") as (pipe, _):
        logs.calls.write(logging.INFO, "call", {"number": 1})
        assert pipe.lines_in_words(1) == [["call", "number=1"]]


def test_a_handler_that_fails_ends_no_call(log, capsys):
    """What an owner has set up may raise; the other lines are written, and stderr tells."""
    calls, logger, _, pipe = log

    class Fails(logging.Handler):
        def emit(self, record):
            raise IndexError("collector away")

    logger.addHandler(Fails())
    for number in range(call_log.MAX_NOTES):
        calls.write(logging.INFO, "call", {"number": number})
    calls.write(logging.ERROR, "call", {"number": "last"})
    assert len(pipe.lines(call_log.MAX_NOTES + 1)) == call_log.MAX_NOTES + 1
    assert "collector away" in capsys.readouterr().err


def test_handlers_that_log_themselves_do_not_block_each_other(log):
    """An owner's handler that writes a line of another logger holds its own lock while it does."""
    calls, logger, other_logger, _ = log
    both = threading.Barrier(2, timeout=10)

    class Talks(logging.Handler):
        def emit(self, record):
            other_logger.info("emitting")

    talks = Talks()
    logger.addHandler(talks)

    def by_hand():
        talks.acquire()
        try:
            both.wait()
            other_logger.info("from a thread")
        finally:
            talks.release()

    thread = threading.Thread(target=by_hand, daemon=True)
    thread.start()
    calls.write(logging.INFO, "call", {})
    both.wait()
    flusher = threading.Thread(target=calls.flush, daemon=True)
    flusher.start()
    for runner in (thread, flusher):
        runner.join(10)
        assert not runner.is_alive()


def test_nothing_is_lost_at_the_end():
    """Also if the owner's configuration makes logging forget its handlers."""
    code = """
from mlflow_grpc import logs
from mlflow_grpc.logs import call_log, line_writer
from mlflow_grpc.logs import format as log_format
from mlflow_grpc.logs.handler import LineHandler
from tests.support.servers import ROOT
from mlflow_grpc.settings import LogFormat, LogLevel
logs.configure(LogFormat.TEXT, LogLevel.INFO, extra={"version": 1})
for number in range(3):
    logs.calls.write(20, "call", {"number": number})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert [line.split()[-1] for line in done.stderr.splitlines()] == ["number=0", "number=1", "number=2"]


def numbered(logger, count):
    """Writes so many lines of 1,000 characters, each with its number."""
    for number in range(count):
        logger.warning("%d %s", number, "x" * 1000)


def numbers(lines):
    return [int(json.loads(line)["message"].split()[0]) for line in lines]


def test_a_reader_that_stops_reading_holds_up_nobody():
    """What it leaves is kept up to a bound; when it reads again it gets that, and how many lines it has lost."""
    count = 3 * line_writer.MAX_CHARACTERS // 1000
    with piped(log_format.JsonFormatter(), "test_logs.pipe") as (pipe, logger):
        began = time.monotonic()
        numbered(logger, count)
        logger.handlers[0].flush()
        assert time.monotonic() - began < 5 + 2 * line_writer.STALL_S
        kept = []
        while not (line := pipe.lines(1)[0]).startswith('{"time"') or "lost" not in line:
            kept.append(line)
        assert numbers(kept) == list(range(len(kept)))
        assert 0.9 * line_writer.MAX_CHARACTERS < len("".join(kept)) < 1.1 * line_writer.MAX_CHARACTERS
        warning = json.loads(line)
        assert (warning["level"], warning["lines"]) == ("warning", count - len(kept))
        logger.warning("after")
        assert json.loads(pipe.lines(1)[0])["message"] == "after"


def test_a_reader_that_reads_gets_all(monkeypatch):
    """However fast lines come, from several threads: they go at its pace."""
    monkeypatch.setattr(line_writer, "MAX_CHARACTERS", 64_000)
    monkeypatch.setattr(line_writer, "SLOWDOWN_CHARACTERS", 32_000)
    threads, count = 3, 500
    with piped(log_format.JsonFormatter(), "test_logs.pipe") as (pipe, logger):
        writing = [threading.Thread(target=numbered, args=(logger, count), daemon=True) for _ in range(threads)]
        for thread in writing:
            thread.start()
        assert sorted(numbers(pipe.lines(threads * count))) == sorted(list(range(count)) * threads)


def test_long_lines_of_several_processes_stay_whole():
    """Workers share the stream, and a full pipe takes lines in parts."""
    code = """
import logging, sys
from mlflow_grpc import logs
from mlflow_grpc.logs.handler import LineHandler
logger = logging.getLogger("long")
logger.handlers = [LineHandler(sys.stdout, logs.calls)]
for number in range(300):
    logger.warning("%s %s", sys.argv[1], sys.argv[1] * 9000)
logger.handlers[0].flush()
"""
    reading, writing = os.pipe()
    commands = [[sys.executable, "-c", code, name] for name in "ab"]
    writers = [subprocess.Popen(command, stdout=writing, cwd=ROOT) for command in commands]
    os.close(writing)
    text = b""
    while chunk := os.read(reading, 3000):  # Less than a page at a time: it is full all the while.
        text += chunk
    os.close(reading)
    assert [writer.wait(30) for writer in writers] == [0, 0]
    lines = text.decode().splitlines()
    assert sorted(lines) == [f"{name} {name * 9000}" for name in "ab" for _ in range(300)]


def test_a_pipe_that_somebody_made_non_blocking_loses_no_lines():
    """Whoever shares it may do so; what does not fit then waits."""
    with piped(log_format.JsonFormatter(), "test_logs.pipe") as (pipe, logger):
        os.set_blocking(pipe.stream.fileno(), False)
        numbered(logger, 300)
        assert numbers(pipe.lines(300)) == list(range(300))


def test_what_a_model_forks_writes_its_own_lines_at_once():
    """And not those of the server again, which nobody has read yet."""
    with piped(log_format.JsonFormatter(), "test_logs.pipe") as (pipe, logger):
        numbered(logger, 200)
        if (child := os.fork()) == 0:
            logger.handlers[0].flush()
            logger.warning("1000 of the child")
            os._exit(0)
        lines = numbers(pipe.lines(201))
        os.waitpid(child, 0)
        assert sorted(lines) == [*range(200), 1000]
        assert pipe.is_empty()


def test_what_a_model_forks_leaves_the_calls_of_the_server_to_the_server(log):
    """What is noted of them is written once, although the child has a copy of it and writes lines of its own."""
    calls, _, other_logger, pipe = log
    for number in range(3):
        calls.write(logging.INFO, "call", {"number": number})
    if (child := os.fork()) == 0:
        other_logger.warning("of the child")
        os._exit(0)
    os.waitpid(child, 0)
    assert pipe.lines_in_words(1) == [["of", "the", "child"]]
    other_logger.warning("of the server")
    assert pipe.lines_in_words(4) == [*(["call", f"number={number}"] for number in range(3)), ["of", "the", "server"]]
    assert pipe.is_empty()
