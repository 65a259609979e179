"""The HTTP port itself: TLS, workers, origins, limits of connections, addresses that are taken."""

import asyncio
import contextlib
import re
import signal
import socket
import time
from email.utils import parsedate_to_datetime
from threading import Thread
from typing import Any

import pytest
import requests
import trustme

from mlflow_grpc.errors import AddressUnavailable
from mlflow_grpc.http import connections, listener
from mlflow_grpc.lifecycle import Server
from mlflow_grpc.settings import Settings
from tests.support.models import FunctionModel, GatedModel, PlainCodec
from tests.support.servers import Caller, InProcess, free_port, ready_address, serving, start_server

STEPPER = "mlmodel:tests.support.quick_stepper.Stepper"


def echo(**settings):
    return serving(FunctionModel(lambda text: text), PlainCodec(), http_port=0, **settings)


def connected(server):
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def is_closed(peer) -> bool:
    """Waits until the server closes a connection."""
    with contextlib.suppress(ConnectionResetError):
        while peer.recv(65_536):
            pass
    return True


@pytest.fixture
def issued(tmp_path):
    """An authority, and the files of a certificate for this machine."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    certificate.private_key_pem.write_to_path(files["key"])
    files["cert"].write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    client = authority.issue_cert("client")
    client.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    return files, tmp_path / "client.pem"


def test_tls_has_the_files_of_grpc(issued):
    """The HTTP port has the TLS files of gRPC, also with client certificates."""
    files, client = issued
    with echo(tls_cert=files["cert"], tls_key=files["key"], tls_client_ca=files["ca"]) as server:
        url = f"{server.url}/invocations"
        assert url.startswith("https://")
        with pytest.raises((requests.exceptions.SSLError, requests.ConnectionError)):
            requests.post(url, data="x", verify=str(files["ca"]), timeout=30)
        assert requests.post(url, data="x", verify=str(files["ca"]), cert=str(client), timeout=30).text == "x"


def test_no_origin_may_call_unless_a_setting_says_so():
    """The headers of CORS are there for the origins that are set, and for no others."""
    headers = {"origin": "https://app.example.com"}
    with echo() as server:
        assert (
            "access-control-allow-origin" not in requests.get(f"{server.url}/ping", headers=headers, timeout=30).headers
        )
    with echo(http_cors_origin="https://app.example.com, http://localhost:3000") as server:
        url = f"{server.url}/invocations"
        answer = requests.post(url, data="x", headers=headers, timeout=30)
        assert answer.headers["access-control-allow-origin"] == headers["origin"]
        preflight = {
            **headers,
            "access-control-request-method": "POST",
            "access-control-request-headers": "mlflow-model",
        }
        assert requests.options(url, headers=preflight, timeout=30).status_code == 200
        other = requests.options(url, headers={**preflight, "origin": "https://evil.example"}, timeout=30)
        assert "access-control-allow-origin" not in other.headers


def test_headers_that_do_not_arrive_end_the_connection(monkeypatch):
    """Mute ones, and those that send a header now and then; an idle one that has been answered stays."""
    monkeypatch.setattr(connections, "HEADER_TIMEOUT_S", 0.2)
    monkeypatch.setattr(listener, "CHECK_INTERVAL_S", 0.05)
    with echo() as server, connected(server) as mute, connected(server) as slow, requests.Session() as session:
        watching = server.start_task(server.server._http.watch)
        session.post(f"{server.url}/invocations", data="x", timeout=30)
        slow.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\n")
        started = time.monotonic()
        assert is_closed(mute)
        assert is_closed(slow)
        assert time.monotonic() - started < 10
        assert session.post(f"{server.url}/invocations", data="y", timeout=30).text == "y"
        watching.cancel()


def test_empty_lines_do_not_keep_a_connection(monkeypatch):
    """A connection whose request was answered is closed if it sends nothing but line breaks."""
    monkeypatch.setattr(connections, "HEADER_TIMEOUT_S", 0.2)
    monkeypatch.setattr(listener, "CHECK_INTERVAL_S", 0.05)
    with echo() as server, connected(server) as peer:
        watching = server.start_task(server.server._http.watch)
        peer.sendall(b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n")
        assert peer.recv(65_536).startswith(b"HTTP/1.1 200 ")
        peer.sendall(b"\r\n")
        assert is_closed(peer)
        watching.cancel()


def test_endless_headers_behind_a_request_are_cut():
    """Endless headers behind a request are cut while that request is being answered."""
    model = GatedModel()
    with serving(model, PlainCodec(), http_port=0) as server, connected(server) as peer:
        peer.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nholdGET / HTTP/1.1\r\n")
        model.wait_until_entered()
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                peer.sendall(b"x: y\r\n" * 1000)
        assert is_closed(peer)
        model.let_go()


@pytest.mark.parametrize("trailers", [b"x: y\r\n" * 1000, b"y" * 6000])
def test_endless_trailers_are_cut(trailers):
    """Endless trailers are cut like headers, whether there are many or one that does not end."""
    with echo() as server, connected(server) as peer:
        peer.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                peer.sendall(trailers)
        assert is_closed(peer)


def test_trailers_within_the_limit_are_dropped():
    """A request with trailers is answered, and so is the one behind it."""
    request = b"POST /invocations HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\na: b\r\n\r\n"
    with echo() as server, connected(server) as peer:
        for _ in range(2):
            peer.sendall(request)
            answer = b""
            while not answer.endswith(b"\r\n\r\nx"):
                answer += peer.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_large_body_before_a_request_is_no_header():
    """Only the headers of a request count for their limit, not a body that arrives together with them."""
    head = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 100001\r\n\r\n"
    with echo() as server, connected(server) as peer:
        peer.sendall(head + b"x")
        server.wait_until(lambda: server.server._http._server.server_state.connections)
        (connection,) = server.server._http._server.server_state.connections
        server.wait_until(lambda: connection.cycle is not None)

        async def receive_at_once() -> None:
            connection.data_received(b"x" * 100_000 + b"GET /ping HTTP/1.1\r\n")

        server.run(receive_at_once)
        peer.sendall(b"host: x\r\n\r\n")
        answer = b""
        while answer.count(b"HTTP/1.1 200 ") < 2:
            data = peer.recv(65_536)
            assert data, answer
            answer += data


def test_requests_that_are_not_read_yet_are_not_overdue():
    """Headers that uvicorn leaves in the socket, because it answers earlier requests, have not come too late."""
    ping = b"GET /ping HTTP/1.1\r\nhost: x\r\n"
    with echo() as server, connected(server) as peer:
        gate = asyncio.Event()

        async def text(*, is_open_metrics: bool) -> str:
            await gate.wait()
            return "late"

        async def look_later() -> None:
            connection.close_if_overdue(time.monotonic() + 10 * connections.HEADER_TIMEOUT_S)
            gate.set()

        server.server.host.gauges.metrics.text = text
        peer.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n" + ping + b"\r\n" + ping)
        server.wait_until(lambda: server.server._http._server.server_state.connections)
        (connection,) = server.server._http._server.server_state.connections
        server.wait_until(lambda: connection.flow.read_paused)
        server.run(look_later)
        peer.sendall(b"\r\n")
        answer = b""
        while answer.count(b"HTTP/1.1 200 ") < 3:
            data = peer.recv(65_536)
            assert data
            answer += data


def test_an_address_that_is_taken_after_it_was_bound(monkeypatch):
    """Two sockets may be bound to an address before either listens; the start fails instead of waiting."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        bind = listener.HttpListener._bind

        def bind_too_late(self):
            sockets = bind(self)
            other.listen()
            return sockets

        monkeypatch.setattr(listener.HttpListener, "_bind", bind_too_late)
        running = InProcess(Settings(model_uri="(in process)", port=0, http_port=port))
        with pytest.raises(
            AddressUnavailable, match=f"cannot listen on 127.0.0.1 port {port}: .*--http-port or MLFLOW_GRPC_HTTP_PORT"
        ):
            running.start(None, None)
        running.stop()


def test_a_port_is_closed_before_it_was_opened():
    """The port of a server that has not begun to listen can be closed, and stopped."""
    running = InProcess(Settings(model_uri="(in process)", port=0, http_port=0))

    async def close() -> None:
        port = Server(running._settings, running._configuration)._http
        assert port is not None
        port.close_port()
        await port.stop()

    running._thread.start()
    running.run(close)
    running._loop.call_soon_threadsafe(running._loop.stop)


def test_a_failure_of_the_port_does_not_keep_the_server_from_its_end(caplog):
    """A failure while the port closes is logged, and gRPC is stopped too."""
    with echo() as server:

        async def fail(counter: int) -> bool:
            raise RuntimeError("on tick")

        server.server._http._server.on_tick = fail
        server.wait_until(server.server._http._serving.done)
    assert "the HTTP port failed" in caplog.text
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", server.server.port), timeout=30)


def test_more_connections_than_the_limit_are_refused(monkeypatch):
    """Connections above the limit are refused; open connections and gRPC are not affected."""
    monkeypatch.setattr(listener, "max_connections", lambda: 3)
    with echo() as server, contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connected(server))
        server.wait_until(lambda: len(server.server._http._server.server_state.connections) == 3)
        refused = requests.post(f"{server.url}/invocations", data="x", timeout=30)
        assert refused.status_code == 503
        assert refused.headers["connection"] == "close"


def test_workers_share_the_port():
    """Both workers, and nothing else, answer new connections to the port that the flag names."""
    port = free_port()
    with start_server("-m", STEPPER, "-w", "2", "--http-port", str(port)) as server:
        server.wait_for(rf"ready: .*, HTTP on http://127\.0\.0\.1:{port};")
        workers = {
            int(re.findall(r"pid (\d+)", line)[0]) for line in server.stderr if re.search("worker . started", line)
        }
        assert len(workers) == 2
        url = f"http://127.0.0.1:{port}/invocations"
        payload = '{"inputs": ["pid"]}'
        answering = {requests.post(url, data=payload, timeout=30).json()["predictions"] for _ in range(40)}
        assert answering == workers
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.parametrize(
    ("flags", "env"), [(("--http-host", "127.0.0.2"), {}), ((), {"MLFLOW_GRPC_HTTP_HOST": "127.0.0.2"})]
)
def test_the_host_of_the_port(flags, env):
    """The flag and the variable choose the address of HTTP alone; gRPC keeps its own."""
    with start_server("-m", STEPPER, "--host", "127.0.0.1", "--http-port", "0", *flags, env=env) as server:
        assert ready_address(server).startswith("127.0.0.1:")
        port = server.wait_for(r"HTTP on http://127\.0\.0\.2:(\d+);")[1]
        assert requests.get(f"http://127.0.0.2:{port}/ping", timeout=30).status_code == 200
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://127.0.0.1:{port}/ping", timeout=30)


@pytest.mark.deep
def test_the_date_goes_on():
    """The Date of responses is the time, also two seconds after the start."""
    with echo() as server:
        began = time.time()
        while True:
            date = parsedate_to_datetime(requests.get(f"{server.url}/ping", timeout=30).headers["date"]).timestamp()
            assert began - 2 < date < time.time() + 1
            if date > began + 1:
                return
            assert time.time() < began + 10


def test_sigterm_sends_callers_away():
    """After SIGTERM, /ping and /health are 503 like gRPC's health, and calls are answered but close their connections."""
    with start_server("-m", STEPPER, "--http-port", "0", "--lame-duck", "60") as server, requests.Session() as session:
        address = ready_address(server)
        url = server.wait_for(r"HTTP on (http://127\.0\.0\.1:\d+);")[1]
        before = [session.get(f"{url}{path}", timeout=30) for path in ("/ping", "/health")]
        assert [(response.status_code, "connection" in response.headers) for response in before] == [(200, False)] * 2
        server.signal(signal.SIGTERM)
        server.wait_for("lame duck: NOT_SERVING")
        for path in ("/ping", "/health"):
            response = session.get(f"{url}{path}", timeout=30)
            assert (response.status_code, response.headers["connection"]) == (503, "close")
        call = session.post(f"{url}/invocations", data='{"inputs": ["x"]}', timeout=30)
        assert (call.json(), call.headers["connection"]) == ({"predictions": ["x"]}, "close")
        with Caller(address) as caller:
            health: Any = caller.channel.unary_unary("/grpc.health.v1.Health/Check")
            assert health(b"", timeout=30) == b"\x08\x02"  # NOT_SERVING
        server.signal(signal.SIGINT)
        assert server.wait() == 128 + signal.SIGINT


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken(workers):
    """Exit code 1, with the flag that chooses another one."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        with start_server("-m", STEPPER, "-w", workers, "--http-port", port) as server:
            assert server.wait() == 1
            assert f"cannot listen on 127.0.0.1 port {port}" in server.output
            assert "--http-port" in server.output


UPGRADE = b"host: x\r\nconnection: keep-alive, Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
"""Headers that Java's HttpClient and `curl --http2` send with the first request of a connection."""


@pytest.mark.parametrize(
    "body",
    [b"content-length: 3\r\n\r\nabc", b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_requests_that_ask_for_another_protocol(body, size):
    """They are answered with HTTP/1.1 and keep their bodies, however they are cut, one after the other."""
    request = b"POST /invocations HTTP/1.1\r\n" + UPGRADE + body
    ping = b"GET /ping HTTP/1.1\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\r\n"
    data = request + ping + request + b"GET /ping HTTP/1.1\r\nconnection: close\r\n\r\n"
    with echo() as server, connected(server) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(data), size):
            peer.sendall(data[start : start + size])
        answers = b"".join(iter(lambda: peer.recv(65_536), b""))
    assert (
        re.findall(rb"HTTP/1.1 (\d+) |\r\n\r\n(abc|\n)", answers)
        == [
            (b"200", b""),
            (b"", b"abc"),
            (b"200", b""),
            (b"", b"\n"),
        ]
        * 2
    )


def test_many_requests_for_another_protocol_at_once():
    """A thousand of them in a row are answered, and delay other callers no more than ordinary ones."""
    request = b"POST /invocations HTTP/1.1\r\n" + UPGRADE + b"content-length: 1\r\n\r\nx"
    last = b"GET /ping HTTP/1.1\r\nconnection: close\r\n\r\n"
    with echo() as server, connected(server) as peer:
        sender = Thread(target=peer.sendall, args=(request * 1000 + last,))
        sender.start()
        answers = b"".join(iter(lambda: peer.recv(65_536), b""))
        sender.join()
    assert answers.count(b"\r\n\r\nx") == 1000


def test_a_tunnel_is_refused():
    """CONNECT is for proxies."""
    with echo() as server, connected(server) as peer:
        peer.sendall(b"CONNECT other:80 HTTP/1.1\r\nhost: other\r\n\r\n")
        assert peer.recv(65_536).startswith(b"HTTP/1.1 400 ")
