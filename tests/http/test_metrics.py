"""GET /metrics of a server in this process: what clients saw is what it counts, and callers add no series."""

import asyncio
import contextlib
import re
import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import requests

from mlflow_grpc import protos
from mlflow_grpc.choices import OnError
from mlflow_grpc.config import ModelConfig
from mlflow_grpc.engine.servable import ServableModel
from tests.support.models import FunctionModel, GatedModel, PartsModel, PlainCodec, judge
from tests.support.scrapes import OPEN_METRICS, Scrape
from tests.support.servers import ROOT, Caller, serving, serving_models

UNARY = {"grpc_type": "unary", "grpc_service": "MLflow", "grpc_method": "predict"}


@pytest.fixture
def gated():
    """A model with a gate, and its server."""
    model = GatedModel()
    with serving(model, PlainCodec(), threads=2, queue_calls=4, http_port=0) as server:
        yield model, server
        model.let_go()


@pytest.mark.parametrize("accept", ["*/*", OPEN_METRICS])
def test_both_formats_are_what_the_parsers_of_prometheus_take(accept):
    """The text format and OpenMetrics parse, say what they are, and hold the same figures."""
    with serving(FunctionModel(judge), PlainCodec(), http_port=0) as server, Caller(server.address) as call:
        call("x")
        scrape = Scrape(server.url, accept)
    assert scrape.content_type.startswith(
        "application/openmetrics" if "open" in accept else "text/plain; version=0.0.4"
    )
    counter = "grpc_server_handled" if "open" in accept else "grpc_server_handled_total"
    assert scrape.types["grpc_server_handling_seconds"] == "histogram"
    assert scrape.types[counter.removesuffix("_total")] == "counter"
    assert scrape.total("grpc_server_handled_total", **UNARY, grpc_code="OK") == 1
    assert scrape.total("mlflow_grpc_model_info", model="function", state="ready") == 1


def test_a_scrape_has_the_types_and_labels_of_the_page():
    """Each metric of a real scrape has the type and the labels that docs/metrics.md shows."""
    table = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    labels = {name: set(re.findall(r"`(\w+)`(?= \(|,|$)", re.sub(r" \(.*?\)", "", cell))) for name, _, cell in table}
    types = {name.removesuffix("_total"): type_name.replace("info", "gauge") for name, type_name, _ in table}
    with serving(FunctionModel(judge), PlainCodec(), http_port=0) as server, Caller(server.address) as call:
        call("x")
        requests.post(f"{server.url}/invocations", data="x", timeout=30)
        scrape = Scrape(server.url)
    assert scrape.types == {name: type_name for name, type_name in types.items() if name in scrape.types}
    for sample, having in scrape.samples:
        name = sample if sample in labels else re.sub(r"_(bucket|sum|count)$", "", sample)
        assert {key for key, _ in having} - {"le"} == labels[name] - {"worker"}, sample


def test_calls_are_counted_by_the_status_that_their_clients_saw():
    """Calls are counted by the status that their clients saw, in metrics of go-grpc-prometheus with Go's spelling."""
    seen: dict[str, int] = {}
    with serving(FunctionModel(judge), PlainCodec(), http_port=0) as server, Caller(server.address) as call:
        for text in ("x", "y", "bad", "broken", "bad", "z"):
            code = call.outcome(text)[0]
            seen[code] = seen.get(code, 0) + 1
        code = call.outcome("x", mlflow_model="nobody")[0]
        seen[code] = seen.get(code, 0) + 1
        scrape = Scrape(server.url)
    assert seen == {"OK": 3, "INVALID_ARGUMENT": 2, "INTERNAL": 1, "NOT_FOUND": 1}
    spelt = {"OK": 3, "InvalidArgument": 2, "Internal": 1, "NotFound": 1}
    for code, calls in spelt.items():
        assert scrape.total("grpc_server_handled_total", **UNARY, grpc_code=code) == calls
    assert scrape.total("grpc_server_handled_total", **UNARY) == scrape.total("grpc_server_started_total", **UNARY) == 7
    assert scrape.total("grpc_server_handling_seconds_count", **UNARY) == 7
    assert scrape.total("grpc_server_msg_received_total", **UNARY) == 6  # An unknown model is refused unread.
    assert scrape.total("grpc_server_msg_sent_total", **UNARY) == 3
    of_model = {code: scrape.total("mlflow_grpc_requests_total", model="function", grpc_code=code) for code in spelt}
    assert of_model == {"OK": 3, "InvalidArgument": 2, "Internal": 1, "NotFound": 0}


def test_a_stream_counts_its_messages_and_each_request_of_the_model():
    """One call with three messages in each direction is three requests to the model, one of which failed."""
    with serving(FunctionModel(judge), PlainCodec(), http_port=0) as server, Caller(server.address) as call:
        many: Any = call.channel.stream_stream("/MLflowStream/predict_many")
        answers = list(many(protos.Input(value=text).SerializeToString() for text in ("a", "bad", "c")))
        assert len(answers) == 3
        scrape = Scrape(server.url)
    labels = {"grpc_type": "bidi_stream", "grpc_service": "MLflowStream", "grpc_method": "predict_many"}
    assert scrape.total("grpc_server_handled_total", **labels, grpc_code="OK") == 1
    assert scrape.total("grpc_server_msg_received_total", **labels) == 3
    assert scrape.total("grpc_server_msg_sent_total", **labels) == 3
    assert scrape.total("mlflow_grpc_requests_total", grpc_code="OK") == 2
    assert scrape.total("mlflow_grpc_requests_total", grpc_code="InvalidArgument") == 1


def test_waiting_running_and_abandoned_calls(gated):
    """Two calls run, two wait, one more is refused; what still runs after its caller's deadline is abandoned."""
    model, server = gated
    with Caller(server.address) as call, ThreadPoolExecutor(4) as pool:
        outcomes = [pool.submit(call.outcome, "hold", timeout=1.0) for _ in range(2)]
        model.wait_until_entered(2)
        outcomes += [pool.submit(call.outcome, "later", timeout=1.0) for _ in range(2)]
        admission = server.server.catalog.entries[0].engine.admission
        server.wait_until(lambda: admission.admitted_requests == 4)
        assert call.outcome("too many")[0] == "RESOURCE_EXHAUSTED"
        scrape = Scrape(server.url)
        assert scrape.total("mlflow_grpc_requests_in_flight") == 4
        assert scrape.total("mlflow_grpc_requests_waiting") == 2
        assert scrape.total("mlflow_grpc_model_threads_busy") == 2
        assert scrape.total("mlflow_grpc_model_threads") == 2
        assert scrape.total("mlflow_grpc_refused_total", reason="queue_calls") == 1
        assert scrape.total("mlflow_grpc_refused_total") == 1
        assert {outcome.result()[0] for outcome in outcomes[:2]} == {"DEADLINE_EXCEEDED"}
        server.wait_until(lambda: admission.admitted_requests == 0)
        scrape = Scrape(server.url)
        assert scrape.total("mlflow_grpc_abandoned_calls") == 2
        assert scrape.total("mlflow_grpc_requests_in_flight") == scrape.total("mlflow_grpc_requests_waiting") == 0
        model.let_go()
        threads = server.server.catalog.entries[0].engine.threads
        server.wait_until(lambda: threads.abandoned_running == 0)
        assert Scrape(server.url).total("mlflow_grpc_abandoned_calls") == 0


def test_calls_over_their_deadline_are_counted_alike():
    """Whether gRPC's cancellation or the server's timer comes first, both counters say DeadlineExceeded.

    A call whose caller leaves earlier is Canceled.
    """
    model = GatedModel()
    with (
        serving(model, PlainCodec(), threads=2, queue_calls=100, http_port=0) as server,
        Caller(server.address) as call,
        ThreadPoolExecutor(40) as pool,
    ):
        held = call.raw.future(protos.Input(value="hold").SerializeToString(), timeout=30)
        model.wait_until_entered()
        late = [pool.submit(call.outcome, "hold", timeout=0.2 + number / 1000) for number in range(40)]
        assert {outcome.result()[0] for outcome in late} == {"DEADLINE_EXCEEDED"}
        held.cancel()
        server.wait_until(lambda: server.server.host.open_calls.ended_calls == 41)
        scrape = Scrape(server.url)
        model.let_go()
    for code, count in (("DeadlineExceeded", 40), ("Canceled", 1)):
        assert scrape.total("grpc_server_handled_total", grpc_code=code, **UNARY) == count
        assert scrape.total("mlflow_grpc_requests_total", grpc_code=code) == count


@pytest.mark.alone
def test_times_of_the_model_are_what_its_caller_measured(gated):
    """A call that the test held for 0.2 s has them in predicting, and little in waiting, decoding and encoding."""
    model, server = gated
    with Caller(server.address) as call, ThreadPoolExecutor(1) as pool:
        held = pool.submit(call, "hold")
        model.wait_until_entered()
        held_from = time.monotonic()
        pool.submit(time.sleep, 0)  # The pool has one thread, which waits for the call.
        with pytest.raises(TimeoutError):
            held.result(timeout=0.2)
        held_s = time.monotonic() - held_from
        model.let_go()
        assert held.result() == "<hold>"
        total_s = time.monotonic() - held_from + 1
    scrape = Scrape(server.url)
    assert held_s <= scrape.total("mlflow_grpc_predicting_seconds_sum") <= total_s
    assert held_s <= scrape.total("grpc_server_handling_seconds_sum", **UNARY) <= total_s
    for phase in ("waiting", "decoding", "encoding"):
        assert scrape.total(f"mlflow_grpc_{phase}_seconds_count") == 1
        assert 0 < scrape.total(f"mlflow_grpc_{phase}_seconds_sum") < held_s
    assert scrape.total("mlflow_grpc_predicting_seconds_bucket", le="0.15") == 0
    assert scrape.total("mlflow_grpc_predicting_seconds_bucket", le="60.0") == 1


def test_buckets_resolve_a_tenth_of_a_millisecond(gated):
    """Below one millisecond, the bounds are 0.1 ms apart."""
    _, server = gated
    with Caller(server.address) as call:
        call("x")
    bounds = {float(labels["le"]) for labels in Scrape(server.url).labels("grpc_server_handling_seconds_bucket")}
    assert sorted(bound for bound in bounds if bound <= 0.001) == [round(0.0001 * tenth, 4) for tenth in range(1, 11)]


def test_http_requests_are_counted_by_route_method_and_status(gated):
    """A route's template is its label; a method that it does not take has one series for all."""
    _, server = gated
    for path in ("/invocations", "/models/gated/invocations", "/models/gated/versions/7/invocations"):
        requests.post(server.url + path, data="x", timeout=30)
    requests.get(f"{server.url}/ping", timeout=30)
    requests.delete(f"{server.url}/ping", timeout=30)
    scrape = Scrape(server.url)
    name = "http_server_request_duration_seconds_count"
    labels = [tuple(labels[key] for key in sorted(labels)) for labels in scrape.labels(name)]
    assert sorted(labels) == [
        ("GET", "200", "/ping"),
        ("POST", "200", "/invocations"),
        ("POST", "200", "/models/{name}/invocations"),
        ("POST", "404", "/models/{name}/versions/{version}/invocations"),
        ("_OTHER", "405", "/ping"),
    ]
    assert scrape.total(name) == 5
    assert scrape.total("http_server_active_requests") == 1  # The scrape itself.


def test_files_are_counted_by_their_method(gated):
    """The route of a directory has the methods that read it."""
    _, server = gated
    assert requests.get(f"{server.url}/docs/files/swagger-ui.css", timeout=30).status_code == 200
    labels = {"http_route": "/docs/files", "http_request_method": "GET", "http_response_status_code": "200"}
    assert Scrape(server.url).total("http_server_request_duration_seconds_count", **labels) == 1


def test_an_exception_of_a_route_is_counted_and_answered_as_500(gated, monkeypatch, caplog):
    """An exception of a route is counted and answered as 500, with its traceback in the log only."""
    _, server = gated

    async def fail(*, is_open_metrics: bool) -> str:
        raise ValueError("a secret")

    with monkeypatch.context() as patched:
        patched.setattr(server.server.host.gauges.metrics, "text", fail)
        response = requests.get(f"{server.url}/metrics", timeout=30)
    assert (response.status_code, response.json().keys()) == (500, {"error_code", "message"})
    assert response.json()["error_code"] == "INTERNAL_ERROR"
    assert "a secret" in caplog.text
    assert "a secret" not in response.text
    labels = {"http_route": "/metrics", "http_request_method": "GET"}
    counts = Scrape(server.url)
    name = "http_server_request_duration_seconds_count"
    assert counts.total(name, **labels, http_response_status_code="500") == 1
    assert counts.total(name, **labels, http_response_status_code="499") == 0


def test_a_response_that_is_refused_room_is_not_counted_as_sent():
    """A large answer for which there is no room is not sent, so it is no message either."""
    answer = "x" * 16_000_000
    with serving(FunctionModel(lambda _: answer), PlainCodec(), queue_bytes=20_000_000, http_port=0) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.socket() as slow, Caller(server.address) as call:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            slow.connect((host, int(port)))
            slow.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1")
            (entry,) = server.server.catalog.entries
            server.wait_until(lambda: entry.engine.admission.unsent_responses == 1)
            assert call.outcome("x")[0] == "RESOURCE_EXHAUSTED"
            scrape = Scrape(server.url)
    assert scrape.total("grpc_server_msg_received_total", **UNARY) == 1
    assert scrape.total("grpc_server_msg_sent_total", **UNARY) == 0


def test_the_process_keeps_its_metrics_while_no_file_can_be_opened(gated):
    """Reading them fails without an exception, and they are read again later."""
    _, server = gated
    process = server.server.host.gauges.metrics.process
    process.refresh()
    before = [process._resident.total(), process._open_fds.total(), process._threads.total()]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
        process.refresh()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [process._resident.total(), process._open_fds.total(), process._threads.total()] == before
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(socket.socket())
        process.refresh()
        assert process._open_fds.total() == before[1] + 10


def test_callers_add_no_series_whatever_they_send(gated):
    """Unknown paths, methods, models, RPCs and request ids have one series for all of them, or none."""
    _, server = gated

    def annoy(number: int) -> None:
        call.outcome("x", mlflow_model=f"model{number}", x_request_id=f"id{number}")
        requests.get(f"{server.url}/path{number}", timeout=30)
        requests.request(("PUT", "DELETE", "PATCH", "PROPFIND")[number % 4], f"{server.url}/ping", timeout=30)
        requests.post(f"{server.url}/models/m{number}/versions/{number}/invocations", data="x", timeout=30)
        unknown_method: Any = call.channel.unary_unary(f"/S{number}/M{number}")
        with pytest.raises(grpc.RpcError):
            unknown_method(b"", timeout=30)

    with Caller(server.address) as call:
        annoy(0)
        Scrape(server.url)
        before = Scrape(server.url).samples.keys()
        for number in range(1, 30):
            annoy(number)
        scrape = Scrape(server.url)
    assert scrape.samples.keys() == before
    unknown = {"grpc_service": "unknown", "grpc_method": "unknown"}
    assert scrape.total("grpc_server_handled_total", **unknown, grpc_code="Unimplemented") == 30
    assert scrape.total("http_server_request_duration_seconds_count", http_route="") == 30


def test_models_by_name_version_and_state():
    """Each model has its own series; one that could not be loaded is failed; names need not differ, labels do."""
    config = [ModelConfig(class_path="m.A", name="a", version=str(number), endpoint=True) for number in (1, 2)]
    config += [ModelConfig(class_path="m.B", name="b", on_error=OnError.SKIP, endpoint=True)] * 2
    loaded: list[ServableModel | str | None] = [ServableModel(FunctionModel(judge), PlainCodec())] * 2
    models = list(zip(config, [*loaded, "it is broken", "it is broken too"], strict=True))
    with serving_models(models, http_port=0) as server, Caller(server.address) as call:
        call("x", mlflow_model="a/2")
        scrape = Scrape(server.url)
    assert {state: scrape.total("mlflow_grpc_models", state=state) for state in ("loading", "ready", "failed")} == {
        "loading": 0,
        "ready": 2,
        "failed": 2,
    }
    assert scrape.total("mlflow_grpc_requests_total", model="a", version="2", grpc_code="OK") == 1
    assert scrape.total("mlflow_grpc_requests_total", model="a", version="1") == 0
    names = {(labels["model"], labels.get("version", "")) for labels in scrape.labels("mlflow_grpc_model_info")}
    assert names == {("a", "1"), ("a", "2"), ("b", ""), ("b-2", "")}


def test_a_server_without_an_http_port_counts_nothing():
    """Neither its calls nor its engines have figures."""
    with serving(FunctionModel(judge), PlainCodec()) as server, Caller(server.address) as call:
        assert call("x") == "x"
        assert server.server.host.gauges is None
        assert server.server.catalog.entries[0].engine.metrics is None


def test_process_metrics(gated):
    """The process metrics describe the process that runs the server."""
    _, server = gated
    scrape = Scrape(server.url)
    assert abs(scrape.total("process_cpu_seconds_total") - time.process_time()) < 1
    assert scrape.total("process_resident_memory_bytes") > 20_000_000
    assert 3 < scrape.total("process_open_fds") < scrape.total("process_max_fds")
    assert 0 < time.time() - scrape.total("process_start_time_seconds") < time.clock_gettime(time.CLOCK_BOOTTIME)


TIMING = re.compile(r"(\w+);dur=(\d+\.\d{3})")


def timing_of(pairs) -> dict[str, float]:
    return {name: float(milliseconds) for name, milliseconds in TIMING.findall(dict(pairs).get("server-timing", ""))}


def test_server_timing_in_trailers_and_headers(gated):
    """A caller that asks gets server-timing in milliseconds, with phases within the total, for failed calls too."""
    _, server = gated
    data = protos.Input(value="x").SerializeToString()
    with Caller(server.address) as call:
        _, rpc = call.raw.with_call(data, metadata=[("server-timing", "1")], timeout=30)
        times = timing_of(rpc.trailing_metadata())
        assert list(times) == ["queue", "decode", "predict", "encode", "total"]
        assert 0 < sum(times.values()) - times["total"] <= times["total"]
        _, rpc = call.raw.with_call(data, timeout=30)
        assert not timing_of(rpc.trailing_metadata())
        with pytest.raises(grpc.RpcError) as failed:
            call.raw(data, metadata=[("server-timing", "1"), ("mlflow-model", "nobody")], timeout=30)
        assert list(timing_of(failed.value.trailing_metadata())) == ["total"]
    url = f"{server.url}/invocations"
    response = requests.post(url, data="x", headers={"server-timing": "1"}, timeout=30)
    assert list(timing_of(response.headers)) == ["queue", "decode", "predict", "encode", "total"]
    assert "server-timing" not in requests.post(url, data="x", timeout=30).headers


def test_server_timing_for_all():
    """--server-timing sends it to callers that do not ask."""
    with serving(PartsModel(), PlainCodec(), http_port=0, server_timing=True) as server, Caller(server.address) as call:
        _, rpc = call.raw.with_call(protos.Input(value="x").SerializeToString(), timeout=30)
        assert "total" in timing_of(rpc.trailing_metadata())
        assert "total" in timing_of(requests.post(f"{server.url}/invocations", data="x", timeout=30).headers)


@pytest.mark.alone
def test_a_scrape_delays_no_call_by_5_ms():
    """With 64 models whose figures are all shown, the event loop turns to calls after each 5 ms of a scrape's work.

    Processor time is measured, because other processes may take the processor away for any time.
    """
    config = [ModelConfig(class_path="m.A", name=f"m{number}", endpoint=True) for number in range(64)]
    models = [(model, ServableModel(FunctionModel(judge), PlainCodec())) for model in config]
    longest_s = 0.0

    async def watch(scraping: "asyncio.Future[Any]") -> None:
        nonlocal longest_s
        while not scraping.done():
            began_s = time.thread_time()
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.thread_time() - began_s)

    async def scrape() -> str:
        gauges = server.server.host.gauges
        assert gauges is not None
        scraping: asyncio.Future[Any] = asyncio.ensure_future(gauges.refresh_all())
        await watch(scraping)
        scraping = asyncio.ensure_future(gauges.metrics.text())
        await watch(scraping)
        return str(scraping.result())

    with serving_models(models, http_port=0) as server, Caller(server.address) as call:
        for number in range(64):
            call("x", mlflow_model=f"m{number}")
        text = server.run(scrape)
    assert text.count("\n") > 10_000
    assert longest_s < 0.005
