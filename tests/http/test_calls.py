"""Real HTTP against a server in this process: calls, deadlines, limits, callers that leave, the way to the end."""

import contextlib
import gzip
import http.client
import json
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import pytest
import requests

from mlflow_grpc import logs
from mlflow_grpc.calls import open_calls
from mlflow_grpc.config import ModelConfig
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import RequestReadTimeout
from mlflow_grpc.http import dispatch
from mlflow_grpc.payload.codec import TextCodec
from mlflow_grpc.services import dispatch as grpc_dispatch
from tests.support.depth import examples
from tests.support.models import FunctionModel, GatedModel, PartsModel, PlainCodec
from tests.support.servers import Caller, ready_address, serving, serving_models, start_server

MIB = 1024 * 1024
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"  # Messages HealthCheckResponse of grpc.health.v1.


@pytest.fixture
def gated():
    """A model with a gate, its server, and the URL of its calls."""
    model = GatedModel()
    with serving(model, PlainCodec(), threads=2, http_port=0) as server:
        yield model, server, f"{server.url}/invocations"
        model.let_go()


def connect(server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def connect_with_small_buffer(server) -> socket.socket:
    """Connects with a receive buffer that cannot grow, so that the system does not take a large answer in."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(30)
    connection.connect((host, int(port)))
    return connection


def raw(server, *parts: bytes) -> bytes:
    """What the server answers to these bytes until it closes the connection."""
    with connect(server) as connection:
        for part in parts:
            connection.sendall(part)
        answer = b""
        while data := connection.recv(65_536):
            answer += data
    return answer


def arriving_of(server):
    """The room of arriving bodies."""
    return server.server._http._app.dispatcher.arriving


def error_of(response) -> tuple[int, str]:
    return response.status_code, response.json()["error_code"]


def test_a_call(gated):
    """A body in, a body out; the request id comes back."""
    _, _, url = gated
    response = requests.post(url, data="é".encode(), headers={"x-request-id": "abc"}, timeout=30)
    assert (response.status_code, response.text) == (200, "<é>")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["x-request-id"] == "abc"


def test_http_and_grpc_share_the_engine(gated):
    """A call over HTTP and one over gRPC fill the two threads of the model; a third one waits for either."""
    model, server, url = gated
    with Caller(server.address) as call, ThreadPoolExecutor(3) as pool:
        by_http, by_grpc = pool.submit(requests.post, url, data="hold", timeout=30), pool.submit(call, "hold")
        model.wait_until_entered(2)
        late = requests.post(url, data="late", headers={"x-request-timeout-s": "0.2"}, timeout=30)
        assert error_of(late) == (504, "DEADLINE_EXCEEDED")
        model.let_go()
        assert by_http.result().text == by_grpc.result() == "<hold>"


def test_the_server_s_time_limit():
    """A call over the time limit is 504 although the client would wait."""
    model = GatedModel()
    with serving(model, PlainCodec(), timeout_s=0.2, http_port=0) as server:
        assert error_of(requests.post(f"{server.url}/invocations", data="hold", timeout=30))[0] == 504
        model.let_go()


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf", ""])
def test_a_time_limit_that_is_no_number_of_seconds(gated, value):
    """The caller learns which header is wrong."""
    _, _, url = gated
    response = requests.post(url, data="x", headers={"x-request-timeout-s": value}, timeout=30)
    assert error_of(response) == (400, "INVALID_PARAMETER_VALUE")
    assert "x-request-timeout-s" in response.json()["message"]


def test_a_caller_that_leaves_gives_its_place_back(gated):
    """The engine has no call any more, although the model still holds the thread."""
    model, server, _ = gated
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    connection.request("POST", "/invocations", body="hold")
    model.wait_until_entered()
    connection.close()
    (entry,) = server.server.catalog.entries
    server.wait_until(lambda: entry.engine.admission.open_calls == 0 == entry.engine.admission.admitted_requests)


def test_a_body_over_the_limit():
    """413, whether its size is in a header or it comes in chunks; and what it inflates to counts."""
    with serving(FunctionModel(len), PlainCodec(), max_message_bytes=MIB, http_port=0) as server:
        url = f"{server.url}/invocations"
        assert requests.post(url, data=b"x" * MIB, timeout=30).text == str(MIB)
        chunks = (b"x" * 65_536 for _ in range(17))
        for body, headers in (
            (b"x" * (MIB + 1), {}),
            (chunks, {}),
            (gzip.compress(b"x" * (MIB + 1)), {"content-encoding": "gzip"}),
        ):
            response = requests.post(url, data=body, headers=headers, timeout=30)
            assert error_of(response) == (413, "PAYLOAD_TOO_LARGE")
        declared = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 1048577\r\n\r\n"
        answer = raw(server, declared)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"PAYLOAD_TOO_LARGE" in answer


def test_a_caller_that_reads_after_its_whole_body_gets_the_refusal():
    """The connection is closed without a reset, so the response is not lost."""
    with serving(FunctionModel(len), PlainCodec(), max_message_bytes=8 * MIB, http_port=0) as server:
        for _ in range(5):
            size = 12 * MIB
            request = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size
            assert raw(server, request, b"x" * size).startswith(b"HTTP/1.1 413 ")


def test_the_rest_of_a_refused_body_is_awaited_for_a_moment(monkeypatch):
    """A caller that sends nothing more, or more than a body may have, is disconnected."""
    monkeypatch.setattr(dispatch, "LINGER_S", 0.1)
    head = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n"
    with serving(FunctionModel(len), PlainCodec(), max_message_bytes=MIB, http_port=0) as server:
        assert b"PAYLOAD_TOO_LARGE" in raw(server, head)
        monkeypatch.setattr(dispatch, "LINGER_S", 60.0)
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            raw(server, head, *[b"x" * MIB] * 1000)


def test_gzip(gated):
    """Bodies may be compressed, in several members too; what is no gzip, or ends early, is the caller's fault."""
    _, _, url = gated
    headers = {"content-encoding": "gzip"}
    whole = gzip.compress(b"ab") + gzip.compress(b"cd")
    assert requests.post(url, data=whole, headers=headers, timeout=30).text == "<abcd>"
    for body in (b"ab", gzip.compress(b"ab" * 1000)[:-9], b""):
        assert error_of(requests.post(url, data=body, headers=headers, timeout=30)) == (400, "BAD_REQUEST")
    assert requests.post(url, data=b"x", headers={"content-encoding": "br"}, timeout=30).status_code == 415


def test_several_requests_on_one_connection(gated):
    """One after the other, and sent ahead (pipelined); the answers come in order."""
    _, server, _ = gated
    request = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n"
    last = b"POST /invocations HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1\r\n\r\n3"
    answer = raw(server, request + b"1" + request + b"2" + last)
    assert [answer.index(text) for text in (b"<1>", b"<2>", b"<3>")] == sorted(
        answer.index(text) for text in (b"<1>", b"<2>", b"<3>")
    )


def test_what_is_no_http(gated):
    """400, and the connection is closed."""
    _, server, _ = gated
    assert raw(server, b"\x16\x03\x01\x02\x00\x01\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(server, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000).startswith(b"HTTP/1.1 400 ")


def test_other_paths_and_methods(gated):
    """404 says where models are called, 405 which methods there are."""
    _, server, url = gated
    response = requests.post(f"{server.url}/invocation", data="x", timeout=30)
    assert error_of(response) == (404, "ENDPOINT_NOT_FOUND")
    assert "/invocations" in response.json()["message"]
    response = requests.get(url, timeout=30)
    assert (*error_of(response), response.headers["allow"]) == (405, "BAD_REQUEST", "POST")
    assert response.json()["message"] == "/invocations takes POST, not GET."
    assert response.json()["detail"] == "Method Not Allowed"  # All that MLflow's server sends.


@pytest.mark.parametrize(
    ("content_type", "message"),
    [
        (
            "application/json",
            "This predictor only supports the following content types: Types: ['text/plain']. Got 'application/json'. Set "
            "the header content-type to one of them. This server hands the text to the model as it is (--payload text).",
        ),
        (
            "text/plain; charset=latin-1",
            "The scoring server only supports UTF-8. Got 'charset=latin-1'; leave it out of the header content-type. "
            "This server hands the text to the model as it is (--payload text).",
        ),
        (
            "text/plain; version=1",
            "Unrecognized content type parameters: 'version=1'. Leave them out of the header content-type. This server "
            "hands the text to the model as it is (--payload text).",
        ),
    ],
)
def test_unsupported_content_types(content_type, message, caplog):
    """415 says what is wrong with the header, and which media types the model takes; the log does not repeat it."""
    caplog.set_level(logging.INFO, "mlflow_grpc.call")
    with serving(FunctionModel(str), TextCodec(), http_port=0) as server:
        headers = {"content-type": content_type}
        response = requests.post(f"{server.url}/invocations", data="x", headers=headers, timeout=30)
    assert (response.status_code, response.text) == (415, message)
    logs.calls.flush()
    (error,) = [record.fields["error"] for record in caplog.records if "error" in getattr(record, "fields", {})]
    assert error == "The header content-type must be one of text/plain."


def test_an_answer_that_is_not_read_holds_room():
    """Room for large answers is the callers' together; one that is not read is not sent twice."""
    answer = "x" * (4 * MIB)
    with serving(FunctionModel(lambda _: answer), PlainCodec(), queue_bytes=6 * MIB, http_port=0) as server:
        request = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1"
        with connect_with_small_buffer(server) as slow:
            slow.sendall(request)
            (entry,) = server.server.catalog.entries
            server.wait_until(lambda: entry.engine.admission.unsent_responses == 1)
            refused = requests.post(f"{server.url}/invocations", data="x", timeout=30)
            assert error_of(refused) == (429, "REQUEST_LIMIT_EXCEEDED")
            assert int(refused.headers["retry-after"]) >= 1
        server.wait_until(lambda: entry.engine.admission.unsent_responses == 0)
        assert len(requests.post(f"{server.url}/invocations", data="x", timeout=30).content) == len(answer)


def status_of(server, path: str) -> int:
    return requests.get(f"{server.url}/{path}", timeout=30).status_code


def test_health_is_that_of_grpc(gated):
    """/ping and /health are 200 while the server takes calls, and 503 once it sends callers away by its lame duck."""
    _, server, url = gated
    with Caller(server.address) as call:
        health: Any = call.channel.unary_unary("/grpc.health.v1.Health/Check")
        assert health(b"", timeout=30) == SERVING
        assert [status_of(server, path) for path in ("ping", "health")] == [200, 200]
        leaving = server.start_task(lambda: server.server.lame_duck(60.0))
        while health(b"", timeout=30) == SERVING:
            continue
        assert health(b"", timeout=30) == NOT_SERVING
        assert [status_of(server, path) for path in ("ping", "health")] == [503, 503]
        assert requests.post(url, data="x", timeout=30).text == "<x>"
        leaving.cancel()


@pytest.mark.parametrize(
    "path", ["/ping", "/metrics", "/models", "/api/health/ready", "/openapi.json", "/", "/nowhere"]
)
def test_each_response_of_a_lame_duck_closes_its_connection(gated, path):
    """Responses of every route say `Connection: close`, once; before, none does."""
    model, server, url = gated
    with requests.Session() as session, ThreadPoolExecutor(1) as pool:
        assert "connection" not in session.get(f"{server.url}{path}", timeout=30).headers
        assert "connection" not in session.post(url, data="x", timeout=30).headers
        held = pool.submit(requests.post, url, data="hold", timeout=30)
        model.wait_until_entered()
        leaving = server.start_task(lambda: server.server.lame_duck(60.0))
        while session.get(f"{server.url}/ping", timeout=30).status_code == 200:
            continue
        model.let_go()
        assert held.result().headers["connection"] == "close"
        assert session.get(f"{server.url}{path}", timeout=30).headers["connection"] == "close"
        assert session.post(url, data="x", timeout=30).headers["connection"] == "close"
        leaving.cancel()


def test_a_server_that_drains_answers_what_it_has(gated):
    """The call in flight gets its answer; new connections are refused; one on an open connection is 503."""
    model, server, url = gated
    with ThreadPoolExecutor(2) as pool, requests.Session() as session:
        session.post(url, data="x", timeout=30)
        held = pool.submit(requests.post, url, data="hold", timeout=30)
        model.wait_until_entered()
        draining = pool.submit(server.run, server.server.drain)
        server.wait_until(lambda: not server.server.takes_calls)
        assert session.post(url, data="x", timeout=30).status_code == 503
        model.let_go()
        assert held.result().text == "<hold>"
        assert draining.result() == 0


HEAD = b"POST /invocations HTTP/1.1\r\nhost: x\r\n"

HOSTILE = {
    "nothing": b"",
    "half a header": HEAD + b"x: ",
    "half a body": HEAD + b"content-length: 1000000\r\n\r\n",
    "half a chunk": HEAD + b"transfer-encoding: chunked\r\n\r\nfffff\r\n",
    "half a trailer": HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx: ",
    "a declared size over the limit": HEAD + b"content-length: 1000000000\r\n\r\n",
    "chunks over the limit": HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"100000\r\n%b\r\n" % (b"x" * MIB) * 2,
    "headers over the limit": HEAD + b"x: y\r\n" * 20_000,
    "no size of a chunk": HEAD + b"transfer-encoding: chunked\r\n\r\nnot a size\r\n",
    "two sizes": HEAD + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
}
"""Beginnings of requests that do not end or are refused."""


class Hostile:
    """Connections that begin alike, and then send a byte now and then; one that the server closes is opened again."""

    INTERVAL_S = 0.02

    def __init__(self, port: int, opening: bytes, count: int) -> None:
        self.turns = 0
        """Number of times that each connection has sent a byte or was opened again."""
        self._port, self._opening = port, opening
        self._stop = threading.Event()
        self._open = [self._connect() for _ in range(count)]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _connect(self) -> socket.socket:
        opened = socket.create_connection(("127.0.0.1", self._port), timeout=30)
        with contextlib.suppress(ConnectionError):  # The server may refuse it before all of it has been sent.
            opened.sendall(self._opening)
        return opened

    def _run(self) -> None:
        while not self._stop.wait(self.INTERVAL_S):
            for index, connection in enumerate(self._open):
                try:
                    connection.sendall(b"y" if self._opening else b"")
                except ConnectionError:
                    connection.close()
                    self._open[index] = self._connect()
                if self._stop.is_set():
                    break
            self.turns += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for connection in self._open:
            connection.close()


LIMIT_S = 5.0
"""Time in which a call or check has to be answered, in seconds; a machine that is busy with other tests is slow."""


@pytest.fixture(scope="module")
def ports():
    """The address of gRPC and the port of HTTP of a server in its own process."""
    flags = ("-m", "mlmodel:tests.support.quick_stepper.Stepper", "--max-message-bytes", str(MIB))
    with start_server(*flags, "--http-port", "0") as process:
        yield ready_address(process), int(process.wait_for(r"HTTP on http://127\.0\.0\.1:(\d+);")[1])


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_connections_disturb_nobody(ports, kind):
    """Calls over both protocols and checks of health are answered while 30 connections do harm, for some turns."""
    address, port = ports
    url, payload = f"http://127.0.0.1:{port}", '{"inputs": ["x"]}'
    with Caller(address) as call, requests.Session() as session:
        health: Any = call.channel.unary_unary("/grpc.health.v1.Health/Check")
        with Hostile(port, HOSTILE[kind], 30) as hostile:
            calls = 0
            while calls < examples(60) or hostile.turns < 3:
                answer = call(payload, timeout=LIMIT_S)
                assert json.loads(answer) == {"predictions": ["x"]}
                assert session.post(f"{url}/invocations", data=payload, timeout=LIMIT_S).text == answer
                assert health(b"", timeout=LIMIT_S) == SERVING
                assert session.get(f"{url}/ping", timeout=LIMIT_S).status_code == 200
                calls += 1


@pytest.mark.parametrize("path", ["invocations", "models/model/invocations", "api/models/iris_model/prediction"])
def test_a_body_that_does_not_arrive_in_time(monkeypatch, path):
    """The call ends with 408 in the format of its route, as a slow request over gRPC does, and the connection closes."""
    monkeypatch.setattr(open_calls, "MAX_READ_S", 0.1)
    monkeypatch.setattr(grpc_dispatch, "CHECK_INTERVAL_S", 0.05)
    monkeypatch.setattr(dispatch, "LINGER_S", 0.1)
    is_rest = path.startswith("api/")
    config = ModelConfig(class_path="tests.support.rest_models.Iris", name=None if is_rest else "model", endpoint=True)
    with serving_models([(config, None)], http_port=0, timeout_s=0.1) as server:
        watching = server.start_task(server.server.watch)
        head = b"POST /%b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" % path.encode()
        for body in (b"content-length: 100\r\n\r\n{", b"transfer-encoding: chunked\r\n\r\n5\r\n{"):
            answer_head, _, content = raw(server, head + body).partition(b"\r\n\r\n")
            assert answer_head.startswith(b"HTTP/1.1 408 ")
            assert b"connection: close" in answer_head
            answer = json.loads(content)
            message = answer["messages"][0] if is_rest else answer["message"]
            assert "did not arrive in time" in message
            if not is_rest:
                assert answer["error_code"] == RequestReadTimeout.reason
        assert arriving_of(server)._bytes == 0
        watching.cancel()


@pytest.mark.parametrize("path", ["invocations", "api/models/iris_model/prediction"])
def test_the_caller_s_deadline_ends_the_wait_for_a_body(monkeypatch, path):
    """The call ends with 504 at the time that the caller set, as over gRPC, long before the server's own limit."""
    monkeypatch.setattr(dispatch, "LINGER_S", 0.1)
    iris = ModelConfig(class_path="tests.support.rest_models.Iris", endpoint=True)
    with serving_models([(iris, None)], http_port=0) as server:
        head = b"POST /%b HTTP/1.1\r\nhost: x\r\nx-request-timeout-s: 0.2\r\n" % path.encode()
        for body in (b"content-length: 100\r\n\r\n{", b"transfer-encoding: chunked\r\n\r\n5\r\n{"):
            answer_head, _, content = raw(server, head + body).partition(b"\r\n\r\n")
            assert answer_head.startswith(b"HTTP/1.1 504 ")
            assert b"connection: close" in answer_head
            assert b"did not arrive before the caller's deadline" in content
        assert arriving_of(server)._bytes == 0


def test_a_model_is_named_in_the_path_or_a_header(gated):
    """A request names its model in the path or a header; the answer to an unknown name lists the existing names."""
    _, server, url = gated
    assert requests.post(f"{server.url}/models/gated/invocations", data="x", timeout=30).text == "<x>"
    assert requests.post(url, data="x", headers={"mlflow-model": "gated"}, timeout=30).text == "<x>"
    for response in (
        requests.post(f"{server.url}/models/other/invocations", data="x", timeout=30),
        requests.post(f"{server.url}/models/gated/versions/9/invocations", data="x", timeout=30),
        requests.post(url, data="x", headers={"mlflow-model": "other"}, timeout=30),
    ):
        assert error_of(response) == (404, "RESOURCE_DOES_NOT_EXIST")
        assert "gated" in json.loads(response.text)["message"]


def test_a_model_that_could_not_be_loaded():
    """503 with INVALID_STATE at MLflow's routes; the routes of rest-model-service do not have it. Others are called."""
    skipped = (ModelConfig(uri="/nowhere", name="skipped", endpoint=True), "It is gone.")
    iris = (ModelConfig(class_path="tests.support.rest_models.Iris", endpoint=True), None)
    with serving_models([iris, skipped], http_port=0) as server:
        response = requests.post(f"{server.url}/models/skipped/invocations", data="{}", timeout=30)
        assert error_of(response) == (503, "INVALID_STATE")
        assert "could not be loaded" in response.json()["message"]
        assert requests.post(f"{server.url}/api/models/skipped/prediction", json={}, timeout=30).status_code == 404
        record = {"sepal_length": 6.1, "sepal_width": 3.0}
        assert requests.post(f"{server.url}/api/models/iris_model/prediction", json=record, timeout=30).ok


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_version_in_the_path_answers(version):
    """Of two versions of a model, the one in the path or in the header answers; without a version, the highest does."""

    def loaded(number: str) -> tuple[ModelConfig, ServableModel]:
        model = FunctionModel(lambda text: f"version {number}: {text}")
        return ModelConfig(uri="(in process)", name="m", version=number, endpoint=True), ServableModel(
            model, PlainCodec()
        )

    with serving_models([loaded("1"), loaded("2")], http_port=0) as server:
        url = f"{server.url}/models/m/versions/{version}/invocations"
        response = requests.post(url, data="x", timeout=30)
        assert (response.status_code, response.text) == (200, f"version {version}: x")
        by_header = requests.post(
            f"{server.url}/invocations", data="x", headers={"mlflow-model": f"m/{version}"}, timeout=30
        )
        assert by_header.text == response.text
        assert requests.post(f"{server.url}/models/m/invocations", data="x", timeout=30).text == "version 2: x"


def test_an_inflated_body_takes_the_room_that_it_has_in_memory():
    """900 KB that arrive as one are 900 KB, so that there is no room for as many others."""
    body = gzip.compress(bytes(900_000))
    assert len(body) < 2000
    head = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
    with serving(FunctionModel(len), PlainCodec(), queue_bytes=MIB, http_port=0) as server:
        arriving = arriving_of(server)
        with connect(server) as first:
            first.sendall(head + body[:-1])
            server.wait_until(lambda: arriving._bytes == 900_000)
            assert raw(server, head + body[:-1]).startswith(b"HTTP/1.1 429 ")
            first.sendall(body[-1:])
            answer = b""
            while not answer.endswith(b"\r\n\r\n900000"):
                answer += first.recv(65_536)
        assert arriving._bytes == 0


class SlowToParse(PlainCodec):
    """Codec that asks for a stream once the test lets it."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def asks_for_stream(self, payload: object) -> bool:
        return self.gate.wait(60)


def test_a_payload_that_is_looked_at_has_a_deadline_and_takes_room():
    """Finding out if it asks for a stream is within the caller's time, and its bytes count meanwhile."""
    codec = SlowToParse()
    with serving(PartsModel(), codec, http_port=0) as server, ThreadPoolExecutor(1) as pool:
        arriving = arriving_of(server)
        url, body = f"{server.url}/invocations", "x" * 100_000
        held = pool.submit(requests.post, url, data=body, timeout=30)
        server.wait_until(lambda: arriving._bytes == 100_000)
        try:
            late = requests.post(url, data=body, headers={"x-request-timeout-s": "0.2"}, timeout=30)
            assert error_of(late) == (504, "DEADLINE_EXCEEDED")
        finally:
            codec.gate.set()
        assert held.result().headers["content-type"].startswith("text/event-stream")
        assert arriving._bytes == 0


def test_half_requests_take_no_room_of_calls():
    """Bodies that do not arrive are bounded together, and refuse no other call."""
    half = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 900000\r\n\r\n" + b"x" * 600_000
    with serving(FunctionModel(len), PlainCodec(), queue_bytes=MIB, queue_calls=1, http_port=0) as server:
        arriving = arriving_of(server)
        with connect(server) as first, connect(server) as second:
            first.sendall(half)
            server.wait_until(lambda: arriving._bytes == 600_000)
            second.sendall(half)
            answer = second.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert requests.post(f"{server.url}/invocations", data="x", timeout=30).text == "1"
            first.sendall(b"x" * 300_000)
            answer = b""
            while not answer.endswith(b"\r\n\r\n900000"):
                answer += first.recv(65_536)
        assert arriving._bytes == 0
