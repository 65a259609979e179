"""Log lines: one record is one line, and nothing in it can look like another line."""

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
    """Every record is one JSON object on one line."""
    line = log_format.JsonFormatter().format(record(message, {f"x{key}": value for key, value in fields.items()}))
    assert len(line.splitlines()) == 1
    json.loads(line)


@given(st.text(), st.text())
def test_text_lines_are_one_line_without_control_characters(message, value):
    """Neither a line break nor an escape sequence reaches a terminal."""
    line = log_format.TextFormatter().format(record(message, {"key": value}))
    assert len(line.splitlines()) == 1
    assert not [character for character in line if ord(character) < 32 or 127 <= ord(character) < 160]


def test_a_traceback_stays_with_its_record():
    """A traceback stays on its line in JSON and is indented below it for people; control characters are escaped in
    both."""
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
def test_texts_of_exceptions_are_shortened(formatter):
    """Texts of exceptions in chains and groups are shortened before formatting, because the event loop writes the line."""
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
    """A value without a JSON form is still logged."""
    assert json.loads(log_format.JsonFormatter().format(record("m", {"key": value})))["key"] is not None


class Pipe:
    """A pipe, and the lines written to it."""

    def __init__(self):
        self._descriptor, writing = os.pipe()
        self.stream = os.fdopen(writing, "w")
        self._data = b""

    def lines(self, count):
        """Returns the next lines, once they are written."""
        while self._data.count(b"\n") < count:
            assert select.select([self._descriptor], [], [], 10)[0], "nothing more is written"
            self._data += os.read(self._descriptor, 1 << 20)
        *lines, self._data = self._data.split(b"\n", count)
        return [line.decode() for line in lines]

    def lines_in_words(self, count):
        """Returns the next lines without time and level."""
        return [line.split()[2:] for line in self.lines(count)]

    def is_empty(self):
        return not self._data and not select.select([self._descriptor], [], [], 0)[0]

    def stop_reading(self):
        os.close(self._descriptor)  # Ends a write that waits.


@contextlib.contextmanager
def piped(formatter, *names):
    """Makes loggers that write into a pipe, and a log of calls with the name of the first."""
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
    """A log of calls, its logger, another logger, and the pipe that both write to."""
    monkeypatch.setattr(line_writer, "INTERVAL_S", 3600.0)  # Lines are written only on request.
    with piped(log_format.TextFormatter(), "test_logs.call", "test_logs.other") as (pipe, logger, other_logger):
        yield logs.calls, logger, other_logger, pipe


def test_other_lines_are_written_at_once_and_in_order(log):
    """Lines of calls are written later, but never after later lines of others; all other lines are written at once."""
    calls, _, other_logger, pipe = log
    calls.write(logging.INFO, "call", {"number": 1})
    other_logger.info("between")
    assert pipe.lines_in_words(2) == [["call", "number=1"], ["between"]]
    calls.write(logging.INFO, "call", {"number": 2})
    calls.write(logging.ERROR, "call", {"number": 3})
    assert pipe.lines_in_words(2) == [["call", "number=2"], ["call", "number=3"]]


def test_calls_are_written_in_groups(log):
    """Writing lines of calls one by one would double their cost."""
    calls, _, _, pipe = log
    for number in range(line_writer.MAX_LINES - 1):
        calls.write(logging.INFO, "call", {"number": number})
    assert pipe.is_empty()
    calls.write(logging.INFO, "call", {"number": "last"})
    assert pipe.lines_in_words(line_writer.MAX_LINES)[-1] == ["call", "number=last"]


def test_lines_of_calls_are_written_soon():
    """A single line of a call is written soon, too."""
    with piped(log_format.TextFormatter(), "test_logs.call") as (pipe, _):
        logs.calls.write(logging.INFO, "call", {"number": 1})
        assert pipe.lines_in_words(1) == [["call", "number=1"]]


def test_a_failing_handler_does_not_fail_calls(log, capsys):
    """A handler of the owner may raise. The other lines are written, and stderr reports the error."""
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


def test_handlers_that_log_do_not_deadlock(log):
    """A handler of the owner may hold its own lock while it writes a line to another logger."""
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
    """No line is lost at the end, even if the owner's configuration makes logging forget its handlers."""
    code = """
from mlflow_grpc import logs
from mlflow_grpc.choices import LogFormat, LogLevel
logs.configure(LogFormat.TEXT, LogLevel.INFO, extra={"version": 1})
for number in range(3):
    logs.calls.write(20, "call", {"number": number})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert [line.split()[-1] for line in done.stderr.splitlines()] == ["number=0", "number=1", "number=2"]


def numbered(logger, count):
    """Writes a number of lines of 1,000 characters, each with its index; returns the seconds that each of them took."""
    durations_s = []
    for number in range(count):
        began = time.monotonic()
        logger.warning("%d %s", number, "x" * 1000)
        durations_s.append(time.monotonic() - began)
    return durations_s


def numbers(lines):
    return [int(json.loads(line)["message"].split()[0]) for line in lines]


@pytest.mark.slow
def test_a_stalled_reader_blocks_no_writer():
    """Unread lines are kept up to a limit. When the reader continues it gets them, and the number of lost lines."""
    count = 3 * line_writer.MAX_CHARACTERS // 1000
    with piped(log_format.JsonFormatter(), "test_logs.pipe") as (pipe, logger):
        durations_s = numbered(logger, count)
        # Not the sum, which grows with the load of the machine.
        assert sum(duration >= line_writer.STALL_S for duration in durations_s) <= 2
        logger.handlers[0].flush()
        kept = []
        while not (line := pipe.lines(1)[0]).startswith('{"time"') or "lost" not in line:
            kept.append(line)
        assert numbers(kept) == list(range(len(kept)))
        assert 0.9 * line_writer.MAX_CHARACTERS < len("".join(kept)) < 1.1 * line_writer.MAX_CHARACTERS
        warning = json.loads(line)
        assert (warning["level"], warning["lines"]) == ("warning", count - len(kept))
        logger.warning("after")
        assert json.loads(pipe.lines(1)[0])["message"] == "after"


def test_a_slow_reader_gets_all_lines(monkeypatch):
    """A reader that reads gets all lines of several fast threads, which are slowed down to its pace."""
    monkeypatch.setattr(line_writer, "MAX_CHARACTERS", 64_000)
    monkeypatch.setattr(line_writer, "SLOWDOWN_CHARACTERS", 32_000)
    threads, count = 3, 500
    with piped(log_format.JsonFormatter(), "test_logs.pipe") as (pipe, logger):
        writing = [threading.Thread(target=numbered, args=(logger, count), daemon=True) for _ in range(threads)]
        for thread in writing:
            thread.start()
        assert sorted(numbers(pipe.lines(threads * count))) == sorted(list(range(count)) * threads)


def test_long_lines_of_several_processes_stay_whole():
    """Workers share the stream, and a full pipe accepts lines in pieces; lines still stay whole."""
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
    while chunk := os.read(reading, 3000):  # Reads less than a page at a time, so the pipe is always full.
        text += chunk
    os.close(reading)
    assert [writer.wait(30) for writer in writers] == [0, 0]
    lines = text.decode().splitlines()
    assert sorted(lines) == [f"{name} {name * 9000}" for name in "ab" for _ in range(300)]


def test_a_non_blocking_pipe_loses_no_lines():
    """A process that shares the pipe may make it non-blocking. Lines that do not fit then wait."""
    with piped(log_format.JsonFormatter(), "test_logs.pipe") as (pipe, logger):
        os.set_blocking(pipe.stream.fileno(), False)
        numbered(logger, 300)
        assert numbers(pipe.lines(300)) == list(range(300))


def test_forked_processes_write_only_their_own_lines():
    """A process forked by a model writes its own lines at once, and not the server's unwritten lines again."""
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


def test_forked_processes_do_not_repeat_lines_of_calls(log):
    """Notes of calls are written once, although a forked child has a copy of them and writes lines of its own."""
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
