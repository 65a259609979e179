"""The log of a real server: one line per call, no payload, no forged lines."""

import json
import re
import signal
import threading

import pytest

from tests.process.conftest import Held, payload


def lines_of(process):
    """Returns the JSON lines of the log, once the server has ended."""
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    return [json.loads(line) for line in process.stderr]


def test_one_json_line_per_call(start, connect):
    """Off a terminal each line is JSON. A call has exactly one line, with id, model, status and duration."""
    process = start()
    call = connect(process)
    call(payload("secret payload"), x_request_id="first")
    call.outcome("not json: secret payload", x_request_id="second")
    calls = [line for line in lines_of(process) if line["message"] == "call"]
    assert [(line["request_id"], line["model"], line["status"]) for line in calls] == [
        ("first", "model", "OK"),
        ("second", "model", "INVALID_ARGUMENT"),
    ]
    assert all(line["duration_ms"] > 0 for line in calls)
    assert "secret payload" not in process.output


@pytest.mark.alone
def test_lines_have_peer_rows_and_times(start, connect, model, tmp_path):
    """A line has the peer, the rows, the trace, and the time in the model separate from the time before."""
    process = start("-m", str(model), "--threads", "1", "--batching", "off")
    call = connect(process)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    first = Held(call, tmp_path, "first", x_request_id="first", traceparent=f"00-{trace}-00f067aa0ba902b7-01")
    waiting = threading.Thread(target=call, args=(payload("a", "b", "c"),), kwargs={"x_request_id": "second"})
    waiting.start()
    assert call.outcome(payload("x"), timeout=0.3, x_request_id="late", traceparent="00-bad")[0] == "DEADLINE_EXCEEDED"
    first.let_go()
    assert first.result()[0] == "OK"
    waiting.join(30)
    call.outcome("not json", x_request_id="refused")
    lines = {line["request_id"]: line for line in lines_of(process) if line["message"] == "call"}
    peers = {request: line["peer"] for request, line in lines.items()}
    assert [peer for peer in peers.values() if not re.fullmatch(r"ipv4:127\.0\.0\.1:\d+", peer)] == [], peers
    assert [lines["first"]["trace_id"], lines["second"].get("trace_id"), lines["late"].get("trace_id")] == [
        trace,
        None,
        None,
    ]
    assert [lines[name].get("rows") for name in ("first", "second", "late", "refused")] == [3, 3, None, None]
    # The first call held the only thread, and the others waited for it.
    assert lines["first"]["model_ms"] > 200 > lines["first"]["waited_ms"]
    assert lines["second"]["waited_ms"] > 200 > lines["second"]["model_ms"]
    assert lines["late"]["waited_ms"] > 200
    late = {key: lines["late"].get(key) for key in ("level", "status", "reason", "error")}
    assert late == {
        "level": "warning",
        "status": "DEADLINE_EXCEEDED",
        "reason": "DEADLINE_EXCEEDED",
        "error": "The call was not answered before the caller's deadline.",
    }
    assert not {"model_ms"} & {*lines["late"], *lines["refused"]}
    for line in lines.values():
        assert line["waited_ms"] + line.get("model_ms", 0) <= line["duration_ms"] + 1


def test_exceptions_are_logged_under_the_request_id(start, connect):
    """The exception that callers do not see is in the log, on one line, whatever its text contains."""
    process = start()
    call = connect(process)
    status, message = call.outcome(payload("raise", "detail\nFAKE LINE\x1b[31m"), x_request_id="the-id")
    assert status == "INTERNAL"
    assert "detail" not in str(message)
    (line,) = [line for line in lines_of(process) if line.get("request_id") == "the-id"]
    assert "ValueError: detail" in line["exception"]
    assert not [raw for raw in process.stderr if raw.startswith("FAKE")]


def test_text_lines_escape_control_characters(start, connect):
    """Lines for people have the same content, with control characters escaped and tracebacks indented."""
    process = start("--log-format", "text")
    call = connect(process)
    call.outcome(payload("raise", "detail\nFAKE LINE\x1b[31m"), x_request_id="the-id")
    process.signal(signal.SIGTERM)
    process.wait()
    assert not [raw for raw in process.stderr if raw.startswith("FAKE") or "\x1b" in raw]
    assert [raw for raw in process.stderr if "request_id=the-id" in raw and "status=INTERNAL" in raw]


def test_extra_columns_are_not_logged(start, connect, tmp_path):
    """MLflow's warnings about extra columns have names that the caller chose. The log only has their number, and no
    names from refusals."""
    from tests.support import zoo

    zoo.save("numbers", tmp_path / "numbers")
    process = start("-m", str(tmp_path / "numbers"))
    call = connect(process)
    call('{"dataframe_records": [{"a": 1, "b": 2.0, "secret column": 1}], "params": {"secret column": 1}}')
    call.outcome('{"dataframe_records": [{"secret column": 1}]}')
    counts = [line.get("ignored_columns") for line in lines_of(process) if line.get("method") == "/MLflow/predict"]
    assert counts == [2, 1]
    assert "secret column" not in process.output


def test_settings_for_calls_reach_the_model(start, connect, tmp_path):
    """Settings for calls reach the model: unknown columns are refused, and dates in CSV are parsed."""
    from tests.support import zoo

    zoo.save("optional", tmp_path / "optional")
    call = connect(start("-m", str(tmp_path / "optional"), "--unknown-columns", "refuse", "--csv-dates"))
    status, details = call.outcome('{"dataframe_records": [{"need": 1.5, "may_doubel": 1}]}')
    assert (status, "did you mean may_double?" in (details or "")) == ("INVALID_ARGUMENT", True)
    csv = "need,may_datetime\n1.5,2020-02-29\n"
    assert "Timestamp" in (call.outcome(csv, mlflow_content_type="text/csv")[1] or "")


def test_exceptions_are_shown_with_the_flag(start, connect):
    """With --show-exceptions, callers see the exception of the model."""
    call = connect(start("--show-exceptions"))
    status, details = call.outcome(payload("raise", "detail"))
    assert (status, "ValueError: detail" in (details or "")) == ("INTERNAL", True)


def test_metadata_is_not_logged(start, connect):
    """Metadata, which may contain tokens for a proxy, is in no line, not even at level debug."""
    process = start("--log-level", "debug")
    call = connect(process)
    call(payload("x"), authorization="Bearer hidden-1", cookie="hidden-2")
    assert call.outcome(payload("raise", "x"), authorization="Bearer hidden-3", x_request_id="it")[0] == "INTERNAL"
    assert [line for line in lines_of(process) if line.get("request_id") == "it"]
    assert "hidden" not in process.output


def test_log_level(start, connect):
    """Below the level nothing is logged: at warning, neither successful calls nor the shutdown."""
    process = start("--log-level", "warning")
    connect(process)(payload("x"))
    assert not [line for line in lines_of(process) if line["logger"].startswith("mlflow_grpc")]


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.deep), "2"])
def test_a_hung_log_reader_delays_no_call(start, connect, workers):
    """Half a megabyte of unread lines, more than any pipe holds, delays neither calls nor the shutdown."""
    process = start("-w", workers)
    call = connect(process)
    call(payload("x"))
    process.is_read.clear()
    for number in range(200):
        assert call.outcome(payload("raise", "detail" * 300), x_request_id=str(number))[0] == "INTERNAL"
    assert call.channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5) == b"\x08\x01"
    process.signal(signal.SIGTERM)
    assert process.popen.wait(15) == 0


def test_a_paused_log_reader_loses_no_lines(start, connect):
    """A reader that pauses loses no lines."""
    process = start()
    call = connect(process)
    process.is_read.clear()
    for number in range(200):
        call.outcome(payload("raise", "detail" * 300), x_request_id=str(number))
    process.is_read.set()
    ids = [line["request_id"] for line in lines_of(process) if line["message"] == "call"]
    assert ids == [str(number) for number in range(200)]
