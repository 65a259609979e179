"""Invalid addresses, and peers that are not this server: the client's explanations."""

import asyncio
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import h2.config
import h2.connection
import h2.events
import pytest
import uvicorn
from mlflow_grpc_client import TLS, AsyncClient, Client, DeadlineExceeded, PredictError, Unavailable
from mlflow_grpc_client._connection.addresses import explained
from mlflow_grpc_client._connection.targets import target_of

from tests.support.http_server import run_in_thread
from tests.support.servers import free_port


@contextmanager
def talking(answer: bytes | None, host: str = "127.0.0.1") -> Iterator[str]:
    """A TCP server that sends an answer to each caller and hangs up, or hangs up at once for None."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:

        def serve() -> None:
            try:
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        if answer is not None:
                            connection.recv(1024)
                            connection.sendall(answer)
            except OSError:  # The listener is closed.
                pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@contextmanager
def tls_server(certificates) -> Iterator[str]:
    """A gRPC server with TLS."""
    key, cert = (certificates.server[index].read_bytes() for index in (1, 0))
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, cert)]))
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """uvicorn, which `mlflow models serve` runs."""

    async def not_found(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b"not found"})

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(not_found, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    with closing(listener):
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


WITHOUT_RETRIES = {"grpc.enable_retries": 0}
"""Channel options of a client that fails at once; retries take 1.5 s."""


def error_of(address: str | list[str], **options: object) -> str:
    options = {"channel_options": WITHOUT_RETRIES, "timeout_s": 20, **options}
    with Client(address, **options) as client, pytest.raises(PredictError) as caught:  # type: ignore[arg-type]
        client.predict({"inputs": [1]})
    return str(caught.value)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("http://localhost:5000", "the address is host:port, without http://; not 'http://localhost:5000'"),
        ("HTTP://localhost:5000/invocations", "the address is host:port, without HTTP://;"),
        ("https://models.example", r"the address is host:port, without https://; not 'https://models.example'; for TLS give tls \(--tls\) or grpcs://"),
        ("grpc://localhost", "the address 'localhost' has no port: give host:port, such as localhost:50051 for"),
        ("grpcs://models.example/predict", "the address is host:port, without a path; not 'models.example/predict'"),
        ("localhost", "the address 'localhost' has no port: give host:port, such as localhost:50051 for"),
        ("127.0.0.1", "the address '127.0.0.1' has no port: give host:port, such as 127.0.0.1:50051 for"),
        ("::1", r"the address '::1' has no port: give host:port, such as \[::1\]:50051 for"),
        ("[::1]", r"the address '\[::1\]' has no port: give host:port, such as \[::1\]:50051 for"),
        ("localhost:1,localhost", "the address 'localhost' has no port: give host:port, such as localhost:50051 for"),
        ("localhost:1, http://localhost:2", "the address is host:port, without http://; not 'http://localhost:2'"),
        ("localhost:1,localhost:2/x", "the address is host:port, without a path; not 'localhost:2/x'"),
        ("localhost:1,", "the address is host:port, or a target that gRPC knows; not ''"),
        ("grpc://localhost:1,grpcs://localhost:2", r"some of the addresses are with TLS \(grpcs://\) and some not: grpc"),
        ("grpc://localhost:1,localhost:2", r"some of the addresses are with TLS \(grpcs://\) and some not: grpc"),
        ("localhost:1,dns:///a.example:1", "a list has addresses in the form host:port; not 'dns:///a.example:1'"),
        ("dns:///a.example:1,b.example:1", "dns: has one name; give several as a list of host:port, not 'dns:"),
        ("ipv4:localhost:1", "ipv4: has IP addresses with ports, such as ipv4:10.0.0.1:50051; not 'ipv4:localhost:1'"),
        ("ipv4:10.0.0.1:1,10.0.0.2", "ipv4: has IP addresses with ports, such as ipv4:10.0.0.1:50051; not 'ipv4:10.0.0.1:1"),
        ("ipv6:10.0.0.1:1", r"ipv6: has IP addresses with ports, such as ipv6:\[::1\]:50051; not 'ipv6:10.0.0.1:1'"),
        ("tcp://localhost:50051", "the address is host:port, without tcp://;"),
        ("localhost:5000/invocations", "the address is host:port, without a path; not 'localhost:5000/invocations'"),
        ("localhost:50051/", "the address is host:port, without a path;"),
        ("localhost/invocations", "the address is host:port, without a path;"),
        ("localhost:50051?x=1", "the address is host:port, without a path;"),
        ("me@localhost:50051", "the address is host:port, without a user;"),
        (" localhost:50051", "the address is host:port, without spaces;"),
        ("localhost :50051", "the address is host:port, without spaces;"),
        ("50051", "the address is host:port, such as localhost:50051; not '50051'"),
        (":50051", "the address is host:port, such as localhost:50051; not ':50051'"),
        ("localhost:", "the address is host:port, such as localhost:50051; not 'localhost:'"),
        ("localhost:abc", "the address is host:port with a port from 1 to 65535; not 'localhost:abc'"),
        ("localhost:-1", "the address is host:port with a port from 1 to 65535;"),
        ("localhost:0", "the address is host:port with a port from 1 to 65535;"),
        ("[::1]:99999", "the address is host:port with a port from 1 to 65535;"),
        ("", "the address is host:port, or a target that gRPC knows; not ''"),
    ],
)  # fmt: skip
def test_invalid_addresses_are_refused(address, sentence):
    """An invalid address is refused before any connection, with the correct form."""
    with pytest.raises(ValueError, match=f"^{sentence}"):
        target_of(address)
    for client_class in (Client, AsyncClient):
        with pytest.raises(ValueError, match=f"^{sentence}"):
            client_class(address)


@pytest.mark.parametrize(
    "address",
    [
        "localhost:50051", "models.example:443", "a_b.example:1", "127.0.0.1:1", "[::1]:1", "[fe80::1%eth0]:1",
        "dns:///a.example:1", "dns:a.example", "dns://8.8.8.8:53/a.example:1", "unix:/tmp/x", "unix:///tmp/x:99999/s",
        "unix-abstract:x", "ipv4:10.0.0.1:1,10.0.0.2:2", "ipv6:[::1]:1,[::2]:2", "xds:///service", "google-c2p:///a",
        "localhost:https",
    ],
)  # fmt: skip
def test_targets_of_grpc_are_unchanged(address):
    """Targets in gRPC's name syntax are passed unchanged."""
    assert target_of(address).name == address


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("127.0.0.1:1,127.0.0.2:2", "ipv4:127.0.0.1:1,127.0.0.2:2"),
        (["127.0.0.1:1", "127.0.0.2:2"], "ipv4:127.0.0.1:1,127.0.0.2:2"),
        (("127.0.0.1:1", "[::1]:2"), "ipv6:[::ffff:127.0.0.1]:1,[::1]:2"),
        ("[::1]:1, [::2]:2", "ipv6:[::1]:1,[::2]:2"),
        (["127.0.0.1:1", "127.0.0.1:1"], "127.0.0.1:1"),
        (["grpc://127.0.0.1:1/", "grpc://127.0.0.1:2"], "ipv4:127.0.0.1:1,127.0.0.1:2"),
        (["dns:///a.example:1"], "dns:///a.example:1"),
        ("GRPC://a.example:1", "a.example:1"),
    ],
)
def test_targets_of_lists(address, name):
    """The gRPC target for several addresses, which must have one version of IP."""
    assert target_of(address).name == name


@pytest.mark.parametrize("address", [None, 1, [1], b"localhost:1", [b"localhost:1"], [["localhost:1"]]])
def test_addresses_of_other_types(address):
    """Other types are a TypeError that says what an address is; an empty list is a ValueError."""
    with pytest.raises(TypeError, match="an address is a text, such as 'localhost:50051', or a list of such"):
        target_of(address)
    with pytest.raises(ValueError, match="the list of addresses is empty"):
        target_of([])


def test_an_http_server(web):
    """The port of `mlflow models serve` is recognised."""
    assert (
        f"UNAVAILABLE: The server at {web} is an HTTP server, like `mlflow models serve`, not a gRPC server. Give the port "
        "of `mlflow-grpc serve`, by default 50051. (gRPC: failed to connect"
    ) in error_of(web)


def test_an_http_server_and_tls(web, certificates):
    """A client with TLS gets the explanation that the server has none."""
    assert f"The server at {web} does not speak TLS: leave tls (--tls, grpcs://) out" in error_of(
        web, tls=TLS(certificates.ca)
    )


def test_a_server_of_another_protocol():
    """The error explains that bytes are neither gRPC nor HTTP."""
    with talking(b"SSH-2.0-OpenSSH_9.9\r\n" * 3) as address:
        assert f"The server at {address} is not a gRPC server. Give the port of `mlflow-grpc serve`" in error_of(
            address
        )


@contextmanager
def web_server_with_http2(status: bytes) -> Iterator[str]:
    """A server that speaks HTTP/2 and answers each request with an HTTP status, as a proxy without a route does."""

    def serve(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        with peer:
            while data := peer.recv(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        headers = [(b":status", status), (b"content-type", b"text/html")]
                        connection.send_headers(event.stream_id, headers, end_stream=True)
                peer.sendall(connection.data_to_send())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=[listener], daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


@pytest.mark.parametrize(("status", "code"), [(b"404", "UNIMPLEMENTED"), (b"502", "UNAVAILABLE")])
def test_a_web_server_with_http2(status, code):
    """A web server, or a proxy without a route, is recognised by its HTTP status."""
    with web_server_with_http2(status) as address:
        message = error_of(address)
    assert message.startswith(
        f"{code}: What answers at {address} is a web server or a proxy, and no gRPC server: give the"
    )
    assert message.endswith(f"(gRPC: Received http2 header with status: {status.decode()})")


def test_a_server_that_hangs_up():
    """A cleartext client of a server that hangs up gets the explanation that TLS may be required."""
    with talking(None) as address:
        sentence = (
            f"{address} closes connections at once: it may require TLS (give tls, --tls), or is not a gRPC server."
        )
        assert sentence in error_of(address)


def test_a_server_with_tls(certificates):
    """A cleartext client gets advice to use TLS, and one with TLS that a client certificate may be required."""
    key, cert = (certificates.server[index].read_bytes() for index in (1, 0))
    server = grpc.server(ThreadPoolExecutor(1))
    ca = certificates.ca.read_bytes()
    tls_port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, cert)]))
    both = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True)
    )
    server.start()
    trusting: dict[str, TLS] = {"tls": TLS(certificates.ca)}
    try:
        sentence = f"127.0.0.1:{tls_port} closes connections at once: it may require TLS (give tls, --tls)"
        assert sentence in error_of(f"127.0.0.1:{tls_port}")
        assert sentence in error_of(f"127.0.0.1:{tls_port},localhost:{tls_port}")
        assert "closes connections at once: it may require TLS" in error_of(f"127.0.0.1:{both}")
        assert "it may require a client certificate (cert and key, --tls-cert" in error_of(
            f"127.0.0.1:{both}", **trusting
        )
        assert "is not from a trusted authority: give its authority (ca, --tls-ca)" in error_of(
            f"127.0.0.1:{tls_port}", tls=TLS(certificates.other_ca)
        )
        assert "is for another name: connect to that name, or give it (server_name" in error_of(
            f"127.0.0.1:{tls_port}", tls=TLS(certificates.ca, server_name="models.example")
        )
        assert f"The server at 127.0.0.1:{tls_port} has no such method: it is not mlflow-grpc" in error_of(
            f"127.0.0.1:{tls_port}", **trusting
        )
    finally:
        server.stop(None).wait()


def test_nothing_listens():
    """The error has the address, or one of a list, and the default port, or what to do at that port."""
    address = f"127.0.0.1:{free_port()}"
    assert f"Nothing listens at {address}. The default port of `mlflow-grpc serve` is 50051" in error_of(address)
    message = error_of([address, f"[::1]:{free_port()}"])
    assert re.match(r"UNAVAILABLE: Nothing listens at (127.0.0.1|\[::1\]):\d+\. The default port", message)
    status = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:50051: Connection refused (111)"
    assert explained(status, "127.0.0.1:50051", encrypted=False).startswith(
        "Nothing listens at 127.0.0.1:50051. Start a server, or give the address of another machine. (gRPC: "
    )


def test_nothing_listens_at_the_last_address_of_a_name():
    """gRPC reports the last address only. The error names it, and says how to get the error of another one."""
    status = (
        "failed to connect to all addresses; last error: UNKNOWN: ipv6:%5B::1%5D:44385: Failed to connect to remote host: "
        "Connection refused"
    )
    message = explained(status, "models.example:44385", encrypted=False)
    assert message.startswith(
        "Nothing listens at [::1]:44385. If a server listens at an IPv4 address of models.example:44385, give that address "
        "to see why it fails there."
    )
    assert explained(status, "[::1]:44385", encrypted=False).startswith("Nothing listens at [::1]:44385. The default")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_address_of_localhost_that_listens_is_explained(host, certificates):
    """Whichever address of localhost gRPC reports, the error is that of the address at which something listens."""

    async def of_asyncio(address: str) -> list[str]:
        async with AsyncClient(address, timeout_s=20, channel_options=WITHOUT_RETRIES) as client:
            with pytest.raises(Unavailable) as one:
                await client.predict([1])
            with pytest.raises(Unavailable) as stream:
                await anext(client.stream([{"inputs": [1]}]))
        return [str(one.value), str(stream.value)]

    def of_stream(address: str) -> str:
        with (
            Client(address, timeout_s=20, channel_options=WITHOUT_RETRIES) as client,
            pytest.raises(Unavailable) as error,
        ):
            next(client.stream([{"inputs": [1]}]))
        return str(error.value)

    with talking(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", host) as listening:
        address = f"localhost:{listening.rpartition(':')[2]}"
        for _ in range(6):
            for message in (error_of(address), of_stream(address), *asyncio.run(of_asyncio(address))):
                assert re.search(r"The server at \S+ is an HTTP server", message), message
        message = error_of(address, tls=TLS(certificates.ca))
        assert re.search(r"The server at \S+ does not speak TLS", message), message


def test_a_short_deadline_and_a_wrong_address():
    """A call that ends at its deadline before any server has answered the client says what to check."""
    address = f"127.0.0.1:{free_port()}"
    hint = f"No server at {address} has answered this client yet: check the address, or allow more time."
    with Client(address, timeout_s=0.4) as client, pytest.raises(DeadlineExceeded) as late:
        client.predict([1])
    assert str(late.value) == f"DEADLINE_EXCEEDED: No answer came within 0.4 s. {hint}"

    async def of_asyncio() -> str:
        async with AsyncClient(address, timeout_s=0.4) as client:
            with pytest.raises(DeadlineExceeded) as late:
                await client.predict([1])
        return str(late.value)

    assert asyncio.run(of_asyncio()).endswith(hint)


def test_nothing_listens_at_localhost():
    """If no address of localhost is open, the error names localhost."""
    address = f"localhost:{free_port()}"
    for _ in range(4):
        assert f"UNAVAILABLE: Nothing listens at {address}. The default port" in error_of(address)


def test_tls_that_contradicts_the_address(certificates):
    """grpc:// excludes TLS and grpcs:// implies it; a list of several hosts needs the name in their certificates."""
    for address, tls, sentence in (
        ("grpc://localhost:1", True, "grpc:// is without TLS, and tls is given: localhost:1"),
        ("grpcs://localhost:1", False, "grpcs:// is with TLS, and tls=False: localhost:1"),
        ("grpcs://a.example:1,grpcs://b.example:1", None, "TLS: gRPC checks the certificates of a list for one name"),
        ("10.0.0.1:1,10.0.0.2:1", TLS(certificates.ca), "TLS: gRPC checks the certificates of a list for one name"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Client(address, tls=tls)
    with pytest.raises(TypeError, match="tls is True, False, or TLS"):
        Client("localhost:1", tls="ca.pem")  # type: ignore[arg-type]


def test_a_list_with_an_http_server(web):
    """The error names the HTTP server in the list."""
    nothing = f"127.0.0.1:{free_port()}"
    message = error_of(f"{nothing},{web}")
    assert f"The server at {web} is an HTTP server" in message or f"Nothing listens at {nothing}" in message
    assert f"The server at {web} is an HTTP server" in error_of([web, web.replace("127.0.0.1", "localhost")])


def test_a_target_without_a_port():
    """The error says that gRPC uses port 443, and shows an address with a port."""
    address = "dns:///127.0.0.1"
    assert (
        f"The address {address} has no port, and gRPC takes 443: give host:port, such as {address}:50051."
        in error_of(address)
    )


def test_no_host():
    """A name that does not resolve is explained."""
    assert "The host of no-such-host.invalid:1 cannot be found." in error_of("no-such-host.invalid:1")


def test_the_asyncio_client_has_the_same_explanations(certificates):
    """Both clients have the same explanations."""
    address = f"127.0.0.1:{free_port()}"

    async def call(tls: TLS | None = None) -> None:
        async with AsyncClient(address, timeout_s=20, channel_options=WITHOUT_RETRIES, tls=tls) as client:
            await client.predict({"inputs": [1]})

    async def stream() -> None:
        async with AsyncClient(address, timeout_s=20, channel_options=WITHOUT_RETRIES) as client:
            await anext(client.stream([{"inputs": [1]}]))

    with pytest.raises(Unavailable, match=f"Nothing listens at {address}"):
        asyncio.run(call())
    with tls_server(certificates) as address:
        for call_or_stream in (call, stream):
            with pytest.raises(Unavailable, match=f"{address} closes connections at once: it may require TLS"):
                asyncio.run(call_or_stream())


def test_cleartext_and_tls(scripted_server, certificates):
    """A client with TLS gets the explanation that a cleartext server has none."""
    sentence = f"The server at {scripted_server.address} does not speak TLS: leave tls (--tls, grpcs://) out"
    assert sentence in error_of(scripted_server.address, tls=TLS(certificates.ca))


def test_an_https_server(certificates):
    """A server with TLS and without HTTP/2 is no gRPC server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = run_in_thread(server)
        address = f"127.0.0.1:{server.server_address[1]}"
        message = error_of(address, tls=TLS(certificates.ca))
        server.shutdown()
    thread.join(10)
    assert f"The server at {address} speaks TLS without HTTP/2, so it is not a gRPC server." in message


def test_all_calls_that_fail_are_explained(certificates):
    """Calls that fail together have the same explanation."""

    async def calls(address: str) -> list[str]:
        async with AsyncClient(address, timeout_s=20, channel_options=WITHOUT_RETRIES) as client:
            errors = await asyncio.gather(*(client.predict([1]) for _ in range(3)), return_exceptions=True)
        return [str(error) for error in errors]

    with tls_server(certificates) as address:
        first, *more = asyncio.run(calls(address))
    assert more == [first] * 2
    assert "it may require TLS" in first


def test_an_explanation_takes_no_time(make_client, fast_retries):
    """A failed call ends within its deadline, also if the server answers no further connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        started_at = time.monotonic()
        with pytest.raises(PredictError):
            make_client(f"127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.5).predict([1])
        assert time.monotonic() - started_at < 1.5
        thread.join()
