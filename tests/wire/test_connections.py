"""Connections that misbehave: silent, half open, flooding. They affect no others and are closed."""

import contextlib
import selectors
import socket
import time
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import trustme

from mlflow_grpc.services import listener
from tests.support.models import FunctionModel, PlainCodec
from tests.support.servers import Caller, serving

pytestmark = pytest.mark.slow

CONNECTIONS = 300  # Both ends are in this process, which may have at most 1,024 open files.


def echo(**settings):
    return serving(FunctionModel(lambda text: text), PlainCodec(), **settings)


def connected(address):
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=30)


def until_closed(peers, limit_s):
    """Returns how many of the peers the server has closed by then; reads from those that the server writes to."""
    deadline, closed = time.monotonic() + limit_s, 0
    with selectors.DefaultSelector() as selector:
        for peer in peers:
            selector.register(peer, selectors.EVENT_READ)
        while closed < len(peers) and time.monotonic() < deadline:
            for key, _ in selector.select(0.2):
                open_peer: Any = key.fileobj
                with contextlib.suppress(OSError):
                    if open_peer.recv(65536):
                        continue
                selector.unregister(open_peer)
                closed += 1
    return closed


@pytest.fixture
def impatient(monkeypatch):
    """A server whose limit for a handshake is one second."""
    monkeypatch.setattr(listener, "HANDSHAKE_S", 1.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("opening", [b"", b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_silent_and_slow_connections_are_closed(opening):
    """Hundreds of connections that never send the HTTP/2 preface are closed, and others are answered meanwhile."""
    with echo() as server, contextlib.ExitStack() as stack, Caller(server.address) as call:
        peers = [stack.enter_context(connected(server.address)) for _ in range(CONNECTIONS)]
        for peer in peers:
            peer.sendall(opening)
        assert call("fresh", timeout=5) == "fresh"
        assert until_closed(peers, 30) == CONNECTIONS


@pytest.mark.usefixtures("impatient")
def test_half_open_tls_is_closed(tmp_path):
    """Connections that never finish their TLS handshake are closed."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.private_key_pem.write_to_path(key)
    cert.write_bytes(b"".join(certificate.bytes() for certificate in issued.cert_chain_pems))
    import grpc

    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    with (
        echo(tls_cert=cert, tls_key=key) as server,
        contextlib.ExitStack() as stack,
        Caller(server.address, credentials) as call,
    ):
        peers = [stack.enter_context(connected(server.address)) for _ in range(100)]
        for peer in peers:
            peer.sendall(b"\x16\x03\x01")  # The beginning of a ClientHello.
        assert call("fresh", timeout=5) == "fresh"
        assert until_closed(peers, 30) == len(peers)


def test_a_flood_of_pings_ends_its_own_connection():
    """A peer that floods gets GOAWAY, and others are answered."""
    with echo() as server, connected(server.address) as peer, Caller(server.address) as call:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        connection.initiate_connection()
        for number in range(50):
            connection.ping(number.to_bytes(8, "big"))
        peer.sendall(connection.data_to_send())
        events: list[object] = []
        while not any(isinstance(event, h2.events.ConnectionTerminated) for event in events):
            data = peer.recv(65536)
            assert data, "closed without a word"
            events += connection.receive_data(data)
        (goodbye,) = (event for event in events if isinstance(event, h2.events.ConnectionTerminated))
        assert b"too_many_pings" in (goodbye.additional_data or b"")
        assert call("fresh") == "fresh"
