"""Traces of gRPC calls, as a collector of OTLP gets them."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import grpc

from mlflow_grpc import protos
from mlflow_grpc.config import ModelConfig
from mlflow_grpc.engine.servable import FastPath, ServableModel
from tests.support.models import FunctionModel, GatedModel, PartsModel, PlainCodec, judge
from tests.support.servers import Caller, serving, serving_models

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


def test_a_call_is_a_server_span_with_a_child_for_each_phase(collector):
    """Names, kinds, parents, attributes of the semantic conventions, and times that contain each other."""
    before = time.time_ns()
    with (
        serving(FunctionModel(judge), PlainCodec(), otlp_endpoint=collector.url) as server,
        Caller(server.address) as call,
    ):
        call("x", x_request_id="mine")
    (span,) = collector.named("MLflow/predict")
    assert (span.kind, span.status, span.parent_id) == ("SERVER", "UNSET", "")
    assert (
        span.attributes.items()
        >= {
            "rpc.system.name": "grpc",
            "rpc.method": "MLflow/predict",
            "rpc.response.status_code": "OK",
            "mlflow_grpc.model": "function",
            "mlflow_grpc.request_id": "mine",
            "network.peer.address": "127.0.0.1",
        }.items()
    )
    assert span.resource["service.name"] == "mlflow-grpc"
    phases = collector.children(span)
    assert list(phases) == ["waiting", "decoding", "predicting", "encoding"]
    assert {child.trace_id for child in phases.values()} == {span.trace_id}
    moments = [before, span.start]
    for child in phases.values():
        assert child.kind == "INTERNAL"
        moments += [child.start, child.end]
    moments += [span.end, time.time_ns()]
    assert moments == sorted(moments)
    assert len(collector.spans) == 5


def test_the_caller_s_span_is_the_parent(collector):
    """The trace of a `traceparent` goes on, with its `tracestate`; one that is not sampled sends nothing."""
    with (
        serving(FunctionModel(judge), PlainCodec(), otlp_endpoint=collector.url) as server,
        Caller(server.address) as call,
    ):
        call("x", traceparent=SAMPLED, tracestate="vendor=1")
        call("x", traceparent=UNSAMPLED)
        call("x", traceparent=f"00-{TRACE}-{SPAN}")
    caller_s, new = collector.named("MLflow/predict")
    assert (caller_s.trace_id, caller_s.parent_id, caller_s.state) == (TRACE, SPAN, "vendor=1")
    assert new.trace_id != TRACE
    assert new.parent_id == ""
    assert len(collector.spans) == 10


def test_only_faults_of_the_server_are_errors(collector):
    """A refused payload is no error of the span; a model that fails, and a deadline that passes, are."""
    model = GatedModel()
    with (
        serving(FunctionModel(judge), PlainCodec(), otlp_endpoint=collector.url) as server,
        Caller(server.address) as call,
    ):
        assert call.outcome("bad")[0] == "INVALID_ARGUMENT"
        assert call.outcome("broken")[0] == "INTERNAL"
    with serving(model, PlainCodec(), otlp_endpoint=collector.url) as server, Caller(server.address) as call:
        assert call.outcome("hold", timeout=0.2)[0] == "DEADLINE_EXCEEDED"
        (entry,) = server.server.catalog.entries
        server.wait_until(lambda: not entry.engine.admission.admitted_requests)
        model.let_go()
    refused, failed, late = collector.named("MLflow/predict")
    assert refused.attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert (refused.status, refused.description) == ("UNSET", "")
    assert "error.type" not in refused.attributes
    assert (failed.status, failed.description, failed.attributes["error.type"]) == (
        "ERROR",
        "It is broken.",
        "INTERNAL",
    )
    assert (late.status, late.attributes["error.type"]) == ("ERROR", "DEADLINE_EXCEEDED")
    predicting = collector.children(late)["predicting"]  # It ran on when the caller left.
    assert predicting.end <= late.end


def test_probes_and_reflection_leave_no_trace(collector):
    """Health checks and reflection are not traced; calls that list models are."""
    with (
        serving(FunctionModel(judge), PlainCodec(), otlp_endpoint=collector.url) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        raw: Any = channel
        raw.unary_unary("/grpc.health.v1.Health/Check")(b"")
        info = raw.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        assert list(info(iter([b"\x3a\x00"])))
        raw.unary_unary("/mlflow_grpc.v1.Models/ListModels")(b"")
    assert [span.name for span in collector.spans] == ["mlflow_grpc.v1.Models/ListModels"]


def test_a_stream_is_one_span(collector):
    """A stream is one span, however many messages it has in either direction."""
    with (
        serving(PartsModel(), PlainCodec(), otlp_endpoint=collector.url) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        requests = [protos.Input(value=f"{number}").SerializeToString() for number in range(5)]
        assert len(list(channel.stream_stream("/MLflowStream/predict_many")(iter(requests)))) == 5
        assert list(
            channel.unary_stream("/MLflowStream/predict_stream")(protos.Input(value="a b c").SerializeToString())
        )
    assert [span.name for span in collector.spans] == ["MLflowStream/predict_many", "MLflowStream/predict_stream"]


class Words:
    """Decoder and runner of a fast path that can be held."""

    def __init__(self) -> None:
        self.entered, self.gate = threading.Semaphore(0), threading.Event()

    def decode(self, text: str) -> Any:
        return SimpleNamespace(text=text, count=1)

    def predict(self, requests: Sequence[Any]) -> list[Any]:
        self.entered.release()
        assert self.gate.wait(30)
        return [block.text for block in requests]


def test_the_spans_of_a_batch_are_linked(collector):
    """The first traced call of a batch links to the others and they to it; each has the time of the whole batch."""
    words: Any = Words()
    model = ServableModel(FunctionModel(judge), PlainCodec(), FastPath(words, words, max_rows=64, max_wait_s=30.0))
    config = ModelConfig(class_path="m.A", name="a", endpoint=True)
    unsampled: Any = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
    with (
        serving_models([(config, model)], threads=1, otlp_endpoint=collector.url) as server,
        Caller(server.address) as call,
        ThreadPoolExecutor(5) as threads,
    ):
        calls = [threads.submit(partial(call, "first", **unsampled))]
        assert words.entered.acquire(timeout=30)
        (entry,) = server.server.catalog.entries
        for number, headers in enumerate([unsampled, {}, {}, {}], start=1):
            calls.append(threads.submit(partial(call, f"call {number}", **headers)))
            server.wait_until(lambda number=number: entry.engine.waiting_requests == number)
        words.gate.set()
        assert [answered.result(30) for answered in calls] == ["first", "call 1", "call 2", "call 3", "call 4"]
    first, second, third = sorted(collector.named("predicting"), key=lambda span: -len(span.links))
    assert set(first.links) == {(span.trace_id, span.span_id) for span in (second, third)}
    assert second.links == third.links == [(first.trace_id, first.span_id)]
    for span in (second, third):
        assert max(abs(span.start - first.start), abs(span.end - first.end)) < 1e6  # Nanoseconds.
    assert {span.attributes["mlflow_grpc.batch.calls"] for span in (first, second, third)} == {4}
    assert len({span.trace_id for span in (first, second, third)}) == 3
