"""Log lines: one record a line, nothing in it can pass for another line."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_grpc import logs


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


@pytest.mark.parametrize("value", ["\ud800", {"k": 1}, b"x", object()])
def test_odd_values_do_not_lose_the_line(value):
    """A value with no JSON form is still logged."""
    assert json.loads(logs.JsonFormatter().format(record("m", {"key": value})))["key"] is not None
