"""Traces of server processes: models that MLflow traces, workers, variables, and collectors that are away."""

import json
import signal
import time
from typing import Any

import grpc
import mlflow
import pytest
import requests

from mlflow_grpc import protos
from mlflow_grpc.distribution import install_source
from tests.process.conftest import payload
from tests.process.test_workers import seen_by
from tests.support import traced
from tests.support.collector import Collector
from tests.support.servers import Caller, free_port, ready_address

pytestmark = pytest.mark.slow

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

ONE_CALL = ["MLflow/predict", "decoding", "encoding", "look_up", "predict", "predicting", "waiting"]
"""Names of the spans of a call, sorted."""

PAYLOAD = json.dumps({"inputs": ["a"]})


@pytest.fixture(scope="module")
def traced_model(tmp_path_factory):
    """A model with functions that `@mlflow.trace` decorates."""
    path = tmp_path_factory.mktemp("traced") / "model"
    traced.save(path)
    return path


@pytest.fixture
def store(own_registry):
    """Variables of a tracking store of the test's own."""
    return {"MLFLOW_TRACKING_URI": own_registry}


def end(process):
    process.signal(signal.SIGINT)
    assert process.wait() == 0


def assert_is_below(span, above):
    assert (span.trace_id, span.parent_id) == (above.trace_id, above.span_id)
    assert above.start <= span.start <= span.end <= above.end


def test_spans_of_mlflow_are_below_those_of_the_call(start, traced_model, collector, store):
    """MLflow's spans are in the trace of the call, and MLflow keeps its own complete trace in its tracking store."""
    process = start("-m", str(traced_model), "--http-port", "0", "--otlp-endpoint", collector.url, env=store)
    address = ready_address(process)
    url = process.wait_for(r"HTTP on (http://\S+:\d+)")[1]
    with Caller(address) as call:
        assert json.loads(call(PAYLOAD)) == {"predictions": ["A"]}
    requests.post(f"{url}/invocations", PAYLOAD, headers={"content-type": "application/json"}, timeout=30)
    end(process)  # MLflow has stored its traces by then.
    traces = mlflow.MlflowClient(store["MLFLOW_TRACKING_URI"]).search_traces(locations=["0"])
    spans = [[span.name for span in trace.data.spans] for trace in traces if '"a"' in (trace.data.request or "")]
    assert spans == [["predict", "look_up"]] * 2
    for name in ("MLflow/predict", "POST /invocations"):
        (server,) = collector.named(name)
        predicting = collector.children(server)["predicting"]
        (predict,) = collector.children(predicting).values()
        assert predict.name == "predict"
        (inner,) = collector.children(predict).values()
        assert inner.name == "look_up"
        assert_is_below(predict, predicting)
        assert_is_below(inner, predict)


def test_spans_of_mlflow_are_below_that_of_a_stream(start, traced_model, collector, store):
    """A stream has one span of the server, and MLflow's are its children; an unsampled call sends nothing."""
    process = start("-m", str(traced_model), "--otlp-endpoint", collector.url, env=store)
    with grpc.insecure_channel(ready_address(process)) as channel:
        stream: Any = channel.unary_stream("/MLflowStream/predict_stream")
        data = protos.Input(value=json.dumps({"inputs": ["ab"]})).SerializeToString()
        assert len(list(stream(data))) == 2
        list(stream(data, metadata=[("traceparent", f"00-{TRACE}-{SPAN}-00")]))
    end(process)
    (server,) = collector.named("MLflowStream/predict_stream")
    (predict,) = collector.children(server).values()
    assert predict.name == "predict_stream"
    assert_is_below(predict, server)
    assert [span.name for span in collector.spans] == [server.name, predict.name, "look_up", "look_up"]


@pytest.mark.deep
@pytest.mark.parametrize("flag", ["01", "00"])
def test_mlflow_s_own_exporter_continues_the_trace_of_the_call(start, traced_model, collector, store, flag):
    """With OpenTelemetry's variable MLflow sends its spans by itself: once, and in the same trace. The log warns of it."""
    process = start("-m", str(traced_model), env={**store, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    with Caller(ready_address(process)) as call:
        call(PAYLOAD, traceparent=f"00-{TRACE}-{SPAN}-{flag}")
        call(PAYLOAD)
    process.wait_for("OTEL_EXPORTER_OTLP_ENDPOINT makes MLflow send the traces of models to that collector instead")
    (new,) = (span for span in collector.wait_for("MLflow/predict", 1 + int(flag)) if span.trace_id != TRACE)
    collector.wait_for("look_up", 1 + int(flag))
    end(process)
    of_caller = [span.name for span in collector.spans if span.trace_id == TRACE]
    assert sorted(of_caller) == (ONE_CALL if flag == "01" else [])
    assert sorted(span.name for span in collector.spans if span.trace_id == new.trace_id) == ONE_CALL
    (predict,) = collector.children(collector.children(new)["predicting"]).values()
    assert predict.name == "predict"


def test_each_worker_sends_its_spans(start, collector):
    """Each process has a tracer of its own, made after the fork."""
    process = start("-w", "2", "--otlp-endpoint", collector.url)
    pids = {str(pid) for pid in seen_by(ready_address(process), 40)}
    end(process)
    spans = collector.named("MLflow/predict")
    assert len(spans) == 40
    assert {str(span.resource["process.pid"]) for span in spans} == pids
    assert len(pids) == 2
    assert len({span.span_id for span in collector.spans}) == len(collector.spans)


def test_a_collector_that_is_away_costs_no_call(start):
    """Calls are answered, the log has one line, spans go on when the collector comes, and the end is in time."""
    port = free_port()
    env = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    process = start("--otlp-endpoint", f"http://127.0.0.1:{port}", env=env)
    with Caller(ready_address(process)) as call:
        call(payload("x"))
        process.wait_for(rf"the collector at http://127\.0\.0\.1:{port} \(--otlp-endpoint\) accepts no spans")
        for _ in range(100):
            call(payload("x"), timeout=5)
        with Collector(f"127.0.0.1:{port}") as collector:
            process.wait_for(r"\(--otlp-endpoint\) accepts spans again")
            before = len(collector.named("MLflow/predict"))
            call(payload("x"))
            collector.wait_for("MLflow/predict", before + 1)
        call(payload("x"))
    began = time.monotonic()
    end(process)
    assert time.monotonic() - began < 10
    assert sum("accepts no spans" in line for line in process.stderr) <= 2
    assert not [line for line in process.stderr if "opentelemetry" in line]


@pytest.mark.deep
def test_a_missing_exporter_is_named(start, tmp_path):
    """The flag without the extra refuses the start; a variable that may be meant for other programs is a warning."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules['opentelemetry.exporter.otlp.proto.grpc.trace_exporter'] = None\n"
    )
    env = {"PYTHONPATH": str(tmp_path)}
    process = start("--otlp-endpoint", "http://127.0.0.1:4317", env=env, fresh=True)
    assert process.wait() == 2
    missing = f"--otlp-endpoint: the extra tracing is not installed: pip install {install_source('tracing')}"
    assert missing in process.output
    env["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = "http://127.0.0.1:4317"
    process = start(env=env, fresh=True)
    process.wait_for("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set, and calls are not traced: the extra tracing")
    with Caller(ready_address(process)) as call:
        call(payload("x"))


def test_an_unsupported_protocol_of_opentelemetry(start, collector):
    """http/json ends no start, and a warning says what to set if a variable turns tracing on. With the flag for the
    endpoint, it ends the start."""
    env = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}
    process = start(env=env)
    ready_address(process)
    assert "http/json" not in process.output
    process = start("--otlp-endpoint", collector.url, env=env)
    assert process.wait() == 2
    advice = (
        "OTEL_EXPORTER_OTLP_PROTOCOL=http/json is not supported: set MLFLOW_GRPC_OTLP_PROTOCOL or --otlp-protocol to"
    )
    assert any(f"Error: --otlp-endpoint: {advice} grpc or http/protobuf" in error for error in process.errors)
    env["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
    process = start(env=env)
    with Caller(ready_address(process)) as call:
        call(payload("x"))
    process.wait_for(f"OTEL_EXPORTER_OTLP_ENDPOINT is set, and calls are not traced: {advice}")
    process = start(env={**env, "MLFLOW_GRPC_OTLP_PROTOCOL": "grpc"})
    with Caller(ready_address(process)) as call:
        call(payload("x"))
    end(process)
    assert len(collector.named("MLflow/predict")) == 1


def test_an_invalid_variable_of_opentelemetry_ends_no_start(start):
    """What OpenTelemetry's own exporter refuses is a warning, and calls are answered."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}
    process = start(env=env)
    with Caller(ready_address(process)) as call:
        call(payload("x"))
    process.wait_for("OTEL_EXPORTER_OTLP_ENDPOINT is set, and calls are not traced: .*'soon'")


def test_an_endpoint_without_a_scheme_is_refused(start):
    """An endpoint without a scheme is refused with the name of the flag and an example of a URL."""
    process = start("--otlp-endpoint", "localhost:4317")
    assert process.wait() == 2
    assert "--otlp-endpoint 'localhost:4317': write it as a URL, such as http://localhost:4317" in process.output
