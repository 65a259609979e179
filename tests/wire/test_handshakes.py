"""Failed TLS connections are reported in a line from time to time; connections with calls are not."""

import logging
import socket
import time

import grpc
import pytest
import trustme

from mlflow_grpc.services.handshakes import FIRST_CALL_LIMIT_S, INTERVAL_S, Handshakes
from tests.support.models import FunctionModel, PlainCodec
from tests.support.servers import Caller, serving


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def server(authority, tmp_path):
    """A server that accepts only clients with a certificate."""
    files = {name: tmp_path / f"{name}.pem" for name in ("cert", "key", "ca")}
    issued = authority.issue_cert("127.0.0.1")
    files["cert"].write_bytes(issued.cert_chain_pems[0].bytes())
    files["key"].write_bytes(issued.private_key_pem.bytes())
    authority.cert_pem.write_to_path(files["ca"])
    tls = {"tls_cert": files["cert"], "tls_key": files["key"], "tls_client_ca": files["ca"]}
    with serving(FunctionModel(lambda text: text), PlainCodec(), **tls) as running:
        yield running


def lines_of(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "mlflow_grpc.services.handshakes"]


def test_failed_handshakes_are_logged(server, authority, caplog):
    """A client without TLS and one without a certificate are counted, and one that calls is not; one line a minute."""
    assert server.server.ready_line.endswith("; TLS with client certificates")
    handshakes = server.server.host.dispatcher.handshakes
    root = authority.cert_pem.bytes()
    with Caller(server.address) as plain, Caller(server.address, grpc.ssl_channel_credentials(root)) as nobody:
        for call in (plain, nobody):
            assert call.outcome("x", timeout=5)[0] == "UNAVAILABLE"
    refused = len(handshakes.pending)
    assert refused >= 2  # Clients may have retried.
    issued = authority.issue_cert("client.example")
    credentials = grpc.ssl_channel_credentials(
        root, issued.private_key_pem.bytes(), b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    )
    with Caller(server.address, credentials) as good:
        assert [good("x"), good("y")] == ["x", "y"]
        assert len(handshakes.pending) == refused
    now = time.monotonic()
    with caplog.at_level(logging.WARNING):
        handshakes.report(now)
        assert lines_of(caplog) == []
        now += FIRST_CALL_LIMIT_S + 1
        handshakes.report(now)
        (line,) = lines_of(caplog)
        assert line.startswith(f"TLS connections that made no call within {FIRST_CALL_LIMIT_S:g} s: {refused}. ")
        host, _, port = server.address.rpartition(":")
        socket.create_connection((host, int(port))).close()
        server.wait_until(lambda: len(handshakes.pending) == 1)
        handshakes.report(now + INTERVAL_S - 1)
        assert len(lines_of(caplog)) == 1
        handshakes.report(now + INTERVAL_S)
        assert lines_of(caplog)[1].startswith(f"TLS connections that made no call within {FIRST_CALL_LIMIT_S:g} s: 1. ")


def test_without_tls_nothing_is_counted():
    """Without TLS, gRPC fetches no certificate, and calls are not counted."""
    with serving(FunctionModel(lambda text: text), PlainCodec()) as running, Caller(running.address) as call:
        assert call("x") == "x"
        assert not running.server.host.dispatcher.handshakes.pending
        assert not running.server.host.dispatcher.handshakes._peers


def test_the_least_recent_peers_are_forgotten(monkeypatch):
    """The peers that have not called for longest are forgotten first; a peer stays while it calls."""
    monkeypatch.setattr("mlflow_grpc.services.handshakes.MAX_PEERS", 2)
    handshakes = Handshakes()
    for _ in range(4):
        handshakes.connection_opened()
    for peer, left in (("a", 3), ("b", 2), ("a", 2), ("c", 1), ("a", 1), ("b", 0)):
        handshakes.call_received(peer)
        assert len(handshakes.pending) == left, peer
