"""Addresses that strangers give: what is said of those that are none, and of what answers there instead of a server."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import grpc
import pytest
import uvicorn
from mlflow_grpc_client import TLS, AsyncClient, Client, PredictError, Unavailable
from mlflow_grpc_client.addresses import checked_address

from tests.support.servers import free_port


@contextmanager
def talking(answer: bytes | None) -> Iterator[str]:
    """A TCP server that says something to each caller and hangs up; None: that hangs up at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

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


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """uvicorn, which is what `mlflow models serve` runs."""

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


def error_of(address: str, **options: object) -> str:
    with Client(address, timeout_s=20, **options) as client, pytest.raises(PredictError) as caught:  # type: ignore[arg-type]
        client.predict({"inputs": [1]})
    return str(caught.value)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("http://localhost:5000", "the address is host:port, without http://; not 'http://localhost:5000'"),
        ("HTTP://localhost:5000/invocations", "the address is host:port, without HTTP://;"),
        ("https://models.example", r"the address is host:port, without https://; not 'https://models.example'; for TLS give tls \(--tls\)"),
        ("grpc://localhost:50051", "the address is host:port, without grpc://;"),
        ("grpcs://localhost:50051", r"the address is host:port, without grpcs://; .*; for TLS give tls"),
        ("tcp://localhost:50051", "the address is host:port, without tcp://;"),
        ("localhost:5000/invocations", "the address is host:port, without a path; not 'localhost:5000/invocations'"),
        ("localhost:50051/", "the address is host:port, without a path;"),
        ("localhost/invocations", "the address is host:port, without a path;"),
        ("localhost:50051?x=1", "the address is host:port, without a path;"),
        ("me@localhost:50051", "the address is host:port, without a user;"),
        ("localhost:1,localhost:2", "the address is host:port; several are written ipv4:10.0.0.1:50051,10.0.0.2:50051;"),
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
def test_what_is_no_address(address, sentence):
    """Each is refused before anything is tried, with what to write."""
    with pytest.raises(ValueError, match=f"^{sentence}"):
        checked_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "localhost", "localhost:50051", "models.example:443", "a_b.example:1", "127.0.0.1:1", "[::1]:1", "[fe80::1%eth0]:1", "::1",
        "dns:///a.example:1", "dns:a.example", "dns://8.8.8.8:53/a.example:1", "unix:/tmp/x", "unix:///tmp/x:99999/s",
        "unix-abstract:x", "ipv4:10.0.0.1:1,10.0.0.2:2", "ipv6:[::1]:1,[::2]:2", "xds:///service", "google-c2p:///a",
        "localhost:https",
    ],
)  # fmt: skip
def test_names_of_grpc_stay_as_they_are(address):
    """gRPC's own name syntax is its own affair."""
    assert checked_address(address) == address


def test_an_http_server(web):
    """The port of `mlflow models serve` is told from one of ours."""
    assert (
        f"UNAVAILABLE: What answers at {web} is an HTTP server, as `mlflow models serve` is, and no gRPC server. Give the "
        "port of `mlflow-grpc serve`, 50051 if it was not told otherwise. (gRPC: failed to connect"
    ) in error_of(web)


def test_an_http_server_and_tls(web, certificates):
    """A client with TLS is told that the server has none."""
    assert f"The server at {web} does not speak TLS: leave tls (--tls) out" in error_of(web, tls=TLS(certificates.ca))


def test_a_server_of_another_protocol():
    """Bytes that are no HTTP either."""
    with talking(b"SSH-2.0-OpenSSH_9.9\r\n" * 3) as address:
        assert f"What answers at {address} is no gRPC server. Give the port of `mlflow-grpc serve`" in error_of(address)


def test_a_server_that_hangs_up():
    """As one does that speaks TLS only, to a client that does not."""
    with talking(None) as address:
        sentence = f"{address} closes connections at once: it may speak TLS (give tls, --tls), or be no gRPC server."
        assert sentence in error_of(address)


def test_a_server_that_speaks_tls(certificates):
    """A plain client is told to give TLS, one with TLS that a certificate may be wanted."""
    key, cert = (certificates.server[index].read_bytes() for index in (1, 0))
    server = grpc.server(ThreadPoolExecutor(1))
    ca = certificates.ca.read_bytes()
    one = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, cert)]))
    both = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True)
    )
    server.start()
    trusting: dict[str, TLS] = {"tls": TLS(certificates.ca)}
    try:
        assert "it may speak TLS (give tls, --tls)" in error_of(f"127.0.0.1:{one}")
        assert "it may want a certificate of the client (cert and key, --tls-cert" in error_of(
            f"127.0.0.1:{both}", **trusting
        )
        assert "is of no authority that is trusted here: give that authority (ca, --tls-ca)" in error_of(
            f"127.0.0.1:{one}", tls=TLS(certificates.other_ca)
        )
        assert "is for another name: connect to that, or give it (server_name" in error_of(
            f"127.0.0.1:{one}", tls=TLS(certificates.ca, server_name="models.example")
        )
        assert f"The server at 127.0.0.1:{one} has no such method: it is another gRPC server" in error_of(
            f"127.0.0.1:{one}", **trusting
        )
    finally:
        server.stop(None).wait()


def test_nothing_listens():
    """The address, and the port that ours has."""
    address = f"127.0.0.1:{free_port()}"
    assert f"Nothing listens at {address}. The port of `mlflow-grpc serve` is 50051" in error_of(address)


@pytest.mark.parametrize(
    ("address", "example"), [("127.0.0.1", "127.0.0.1:50051"), ("::1", "[::1]:50051"), ("[::1]", "[::1]:50051")]
)
def test_no_port(address, example):
    """gRPC goes to port 443, which is said, with an address that has one."""
    assert f"The address {address} has no port, and gRPC takes 443: give host:port, such as {example}." in error_of(
        address
    )


def test_no_host():
    """A name that does not resolve."""
    assert "The host of no-such-host.invalid:1 cannot be found." in error_of("no-such-host.invalid:1")


def test_the_asyncio_client_says_the_same():
    """Both clients share the words."""
    address = f"127.0.0.1:{free_port()}"

    async def call() -> None:
        async with AsyncClient(address, timeout_s=20) as client:
            await client.predict({"inputs": [1]})

    with pytest.raises(Unavailable, match=f"Nothing listens at {address}"):
        asyncio.run(call())
