"""Traces of HTTP requests, as a collector of OTLP gets them, over HTTP too."""

import pytest
import requests

from mlflow_grpc import logs
from mlflow_grpc.errors import InvalidPayload, NotReady
from tests.support.collector import HttpCollector
from tests.support.models import FunctionModel, PartsModel, PlainCodec
from tests.support.servers import Caller, serving

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def judge(data):
    """Refuses `bad`, cannot answer `later`, and repeats everything else."""
    if data == "bad":
        raise InvalidPayload("It is bad.")
    if data == "later":
        raise NotReady("Come back later.")
    return data


def test_a_request_is_a_server_span_with_a_child_for_each_phase(collector):
    """A request is a server span with a child for each phase, with HTTP's conventions, in the caller's trace."""
    with serving(FunctionModel(judge), PlainCodec(), http_port=0, otlp_endpoint=collector.url) as server:
        headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "user-agent": "test"}
        assert requests.post(f"{server.url}/models/function/invocations", "x", headers=headers, timeout=30).text == "x"
        port = int(server.url.rpartition(":")[2])
    (span,) = collector.named("POST /models/{name}/invocations")
    assert (span.kind, span.status, span.trace_id, span.parent_id) == ("SERVER", "UNSET", TRACE, SPAN)
    expected = {
        "http.request.method": "POST",
        "http.route": "/models/{name}/invocations",
        "http.response.status_code": 200,
        "url.path": "/models/function/invocations",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "network.peer.address": "127.0.0.1",
        "server.address": "127.0.0.1",
        "server.port": port,
        "user_agent.original": "test",
        "mlflow_grpc.model": "function",
    }
    assert span.attributes.items() >= expected.items()
    assert list(collector.children(span)) == ["waiting", "decoding", "predicting", "encoding"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("[", {}),
        ("model:http", {"server.address": "model"}),
        ("model:99999", {"server.address": "model"}),
        ("[::1]:80", {"server.address": "::1", "server.port": 80}),
    ],
)
def test_any_host_header_is_answered(collector, host, expected):
    """A header that is no host and port has no attributes, and the call is answered."""
    with serving(FunctionModel(judge), PlainCodec(), http_port=0, otlp_endpoint=collector.url) as server:
        response = requests.post(f"{server.url}/invocations", "x", headers={"host": host}, timeout=30)
        assert (response.status_code, response.text) == (200, "x")
    (span,) = collector.named("POST /invocations")
    assert {key: value for key, value in span.attributes.items() if key.startswith("server.")} == expected


@pytest.mark.parametrize("method", ["start", "end"])
def test_a_tracer_that_fails_fails_no_call(collector, monkeypatch, caplog, method):
    """An exception of a tracer is logged, and calls of both protocols are answered."""

    def fail(*_: object) -> None:
        raise RuntimeError("a fault of the tracer")

    with serving(FunctionModel(judge), PlainCodec(), http_port=0, otlp_endpoint=collector.url) as server:
        monkeypatch.setattr(server.server.host.open_calls._tracer, method, fail)
        with Caller(server.address) as call:
            assert call("x") == requests.post(f"{server.url}/invocations", "x", timeout=30).text == "x"
    assert caplog.text.count("RuntimeError: a fault of the tracer") == 2


def test_a_tracestate_of_a_caller_is_not_logged(collector, caplog):
    """An invalid one is ignored, as the recommendation has it, and its text does not get into the log."""
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "written by a caller"}
    with serving(FunctionModel(judge), PlainCodec(), http_port=0, otlp_endpoint=collector.url) as server:
        requests.post(f"{server.url}/invocations", "x", headers=headers, timeout=30)
    assert "written by a caller" not in caplog.text
    assert collector.named("POST /invocations")[0].trace_id == TRACE


def test_a_caller_that_leaves_a_stream_is_traced_once(collector, caplog):
    """A caller that leaves a stream results in one span, and in one log line with the status CANCELLED."""
    caplog.set_level("INFO")
    model = PartsModel()
    with serving(model, PlainCodec(), http_port=0, otlp_endpoint=collector.url) as server:
        headers = {"accept": "text/event-stream"}
        with requests.post(f"{server.url}/invocations", "a hold b", headers=headers, stream=True, timeout=30) as stream:
            assert next(stream.iter_lines()) == b"data: a"
            assert model.held.acquire(timeout=30)
        server.wait_until(lambda: not server.server.host.open_calls._calls)
        model.gate.release()
    logs.calls.flush()
    assert [record.fields["status"] for record in caplog.records if record.msg == "call"] == ["CANCELLED"]
    assert len(collector.named("POST /invocations")) == 1


def test_only_statuses_from_500_are_errors(collector):
    """Only statuses from 500 mark a span as an error, with the status as error.type, by HTTP's semantic conventions."""
    with serving(FunctionModel(judge), PlainCodec(), http_port=0, otlp_endpoint=collector.url) as server:
        for body in ("bad", "later"):
            requests.post(f"{server.url}/invocations", body, timeout=30)
    refused, failed = collector.named("POST /invocations")
    assert (refused.status, refused.attributes["http.response.status_code"]) == ("UNSET", 400)
    assert "error.type" not in refused.attributes
    assert (failed.status, failed.description) == ("ERROR", "Come back later.")
    assert (failed.attributes["http.response.status_code"], failed.attributes["error.type"]) == (503, "503")


def test_a_stream_of_events_is_one_span(collector):
    """An error after the first event is an error of the span, whose status is the 200 that was sent."""
    with serving(PartsModel(), PlainCodec(), http_port=0, otlp_endpoint=collector.url) as server:
        for text in ("a b c", "a raise"):
            accept = {"accept": "text/event-stream"}
            requests.post(f"{server.url}/invocations", text, headers=accept, timeout=30)
    whole, broken = collector.spans
    assert (whole.status, whole.attributes["http.response.status_code"]) == ("UNSET", 200)
    assert broken.attributes["http.response.status_code"] == 200


def test_probes_and_metrics_leave_no_trace(collector):
    """/ping, /health, /version, /metrics and paths that do not exist are not traced."""
    with serving(FunctionModel(judge), PlainCodec(), http_port=0, otlp_endpoint=collector.url) as server:
        for path in ("ping", "health", "version", "metrics", "nowhere"):
            requests.get(f"{server.url}/{path}", timeout=30)
        requests.post(f"{server.url}/invocations", "x", timeout=30)
    assert {span.name for span in collector.spans if span.kind == "SERVER"} == {"POST /invocations"}


def test_otlp_over_http():
    """`--otlp-protocol http/protobuf` sends to /v1/traces if the endpoint has no path."""
    with HttpCollector() as collector:
        settings = {"otlp_endpoint": collector.url, "otlp_protocol": "http/protobuf"}
        with serving(FunctionModel(judge), PlainCodec(), http_port=0, **settings) as server:
            requests.post(f"{server.url}/invocations", "x", timeout=30)
    assert len(collector.named("POST /invocations")) == 1
