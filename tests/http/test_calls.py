"""Real HTTP against a server in this process: calls, deadlines, limits, callers that leave, the way to the end."""

import gzip
import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from mlflow_grpc.http import dispatch
from tests.support.models import FunctionModel, GatedModel, PartsModel, PlainCodec
from tests.support.servers import Caller, serving

MIB = 1024 * 1024


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
    assert requests.get(url, timeout=30).status_code == 405


def test_an_answer_that_is_not_read_holds_room():
    """Room for large answers is the callers' together; one that is not read is not sent twice."""
    answer = "x" * (4 * MIB)
    with serving(FunctionModel(lambda _: answer), PlainCodec(), queue_bytes=6 * MIB, http_port=0) as server:
        request = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1"
        with connect(server) as slow:
            slow.sendall(request)
            (entry,) = server.server.catalog.entries
            server.wait_until(lambda: entry.engine.admission.unsent_responses == 1)
            refused = requests.post(f"{server.url}/invocations", data="x", timeout=30)
            assert error_of(refused) == (429, "REQUEST_LIMIT_EXCEEDED")
            assert int(refused.headers["retry-after"]) >= 1
        server.wait_until(lambda: entry.engine.admission.unsent_responses == 0)
        assert len(requests.post(f"{server.url}/invocations", data="x", timeout=30).content) == len(answer)


def test_health_is_that_of_grpc(gated):
    """/ping and /health are 200 while the server takes calls, and 503 once it drains; connections close then."""
    _, server, url = gated
    assert [requests.get(f"{server.url}/{path}", timeout=30).status_code for path in ("ping", "health")] == [200, 200]

    async def turn_away() -> None:
        await server.server.lame_duck(0.0)

    with requests.Session() as session:
        assert session.get(f"{server.url}/ping", timeout=30).headers.get("connection") is None
        server.server._http.send_callers_away()
        assert session.post(url, data="x", timeout=30).headers["connection"] == "close"


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


def test_slow_and_idle_connections_disturb_nobody(gated, monkeypatch):
    """Callers are answered over both protocols while hundreds of connections send a byte now and then, or nothing."""
    _, server, url = gated
    opened: list[Any] = [connect(server) for _ in range(200)]
    try:
        for connection in opened[:100]:
            connection.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\n")
        started = time.monotonic()
        with Caller(server.address) as call:
            assert call("x") == requests.post(url, data="x", timeout=30).text == "<x>"
        assert time.monotonic() - started < 5
    finally:
        for connection in opened:
            connection.close()


def test_a_model_is_named_in_the_path_or_a_header(gated):
    """And the answer to an unknown name lists those there are."""
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
