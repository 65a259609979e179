"""Calls that arrive while the server shuts down."""

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import trustme

from mlflow_grpc import protos
from mlflow_grpc.calls import idle
from tests.support.http2 import Connection
from tests.support.models import FunctionModel, GatedModel, PlainCodec
from tests.support.servers import Caller, serving

pytestmark = pytest.mark.slow

UNAVAILABLE = "14"
MESSAGE = b"\n\x05hello"
ON_THE_WIRE = 300


def test_calls_queued_in_grpc_are_refused_and_not_cancelled(monkeypatch):
    """Calls that gRPC has received at shutdown, but not handed over yet, are UNAVAILABLE, so clients retry them
    elsewhere. gRPC itself would answer CANCELLED."""
    monkeypatch.setattr(idle, "DRAIN_IDLE_S", 0.5)  # On a busy machine, gRPC's threads pause between two calls.
    with serving(FunctionModel(str), PlainCodec()) as server, Connection(server.address) as connection:
        blocked, all_there = threading.Event(), threading.Event()

        async def end() -> None:
            blocked.set()
            assert all_there.wait(30)  # gRPC hands over no call while the event loop is blocked.
            await server.server.drain()
            await server.server.stop()

        ending = threading.Thread(target=lambda: server.run(end))
        ending.start()
        assert blocked.wait(10)
        for _ in range(ON_THE_WIRE):
            connection.call(MESSAGE)
        connection.wait_until_read()
        all_there.set()
        connection.wait_for_statuses(ON_THE_WIRE)
        assert Counter(connection.statuses.values()) == {UNAVAILABLE: ON_THE_WIRE}
        ending.join(10)
        assert not ending.is_alive()


def test_persistent_callers_do_not_delay_the_end(monkeypatch):
    """Callers that never pause are refused for some time, and then the server ends."""
    monkeypatch.setattr(idle, "DRAIN_IDLE_S", 1.0)
    monkeypatch.setattr(idle, "DRAIN_IDLE_LIMIT_S", 0.5)
    with serving(FunctionModel(str), PlainCodec(), drain_timeout_s=600) as server, Caller(server.address) as call:
        call("before")
        ended, refused = threading.Event(), Counter[str]()

        def go_on() -> None:
            while not ended.is_set():
                refused[call.outcome("more")[0]] += 1

        async def drain() -> float:
            began = time.monotonic()
            await asyncio.wait_for(server.server.drain(), 20)
            return time.monotonic() - began

        caller = threading.Thread(target=go_on)
        caller.start()
        try:
            took_s = server.run(drain)
        finally:
            ended.set()
            caller.join(30)
        assert took_s < 5
        assert refused["UNAVAILABLE"] > 1


def call_until_it_fails(address, credentials, enough):
    """Calls repeatedly; returns the first failure."""
    with Caller(address, credentials) as call:
        answered = 0
        while (outcome := call.outcome("hello"))[0] == "OK":
            answered += 1
            if answered == 20:
                enough.release()
        return ": ".join(map(str, outcome))


def send_away(server, credentials=None, *, connections=8):
    """Sends away callers that call continuously; returns the first failure of each."""
    enough = threading.Semaphore(0)
    with ThreadPoolExecutor(connections) as pool:
        calling = [pool.submit(call_until_it_fails, server.address, credentials, enough) for _ in range(connections)]
        for _ in range(connections):
            assert enough.acquire(timeout=30)
        server.run(lambda: server.server.lame_duck(0.0))
        return [future.result(30) for future in calling]


def test_goaway_loses_no_call():
    """The first failure of each client is that it cannot reconnect: every call that it made was answered."""
    with serving(FunctionModel(str), PlainCodec()) as server:
        for failure in send_away(server):
            assert "Connection refused" in failure


def test_a_client_that_is_slow_to_read_goaway_is_answered():
    """A client whose process has no processor for half a second makes a call before it reads GOAWAY. The call is
    answered, although the server has nothing else to do."""

    async def end() -> None:
        await server.server.lame_duck(0.0)
        await server.server.drain()
        await server.server.stop()

    with serving(FunctionModel(str), PlainCodec()) as server, Connection(server.address) as connection:
        connection.call(MESSAGE)
        connection.wait_for_statuses(1)
        with ThreadPoolExecutor(1) as pool:
            ending = pool.submit(lambda: server.run(end))
            connection.wait_for_goaway()
            time.sleep(0.5)  # The client's process does not run.
            connection.call(MESSAGE)
            connection.wait_for_statuses(2)
            connection.close()
            ending.result(10)
    assert list(connection.statuses.values()) == ["0", "0"]


def test_calls_in_flight_are_answered_after_goaway():
    """A call in flight has as long as the drain timeout."""
    model = GatedModel()
    with serving(model, PlainCodec()) as server, Caller(server.address) as call:
        held = call.raw.future(protos.Input(value="hold").SerializeToString(), timeout=30)
        model.wait_until_entered(1)
        server.run(lambda: server.server.lame_duck(0.0))
        model.let_go()
        assert held.result() is not None
        assert call.outcome("after")[0] == "UNAVAILABLE"


@pytest.mark.deep
def test_over_tls_the_maximum_age_sends_callers_away(tmp_path):
    """Over TLS no call is lost either, if connections have a maximum age that fits into the drain timeout."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(key)
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    with serving(FunctionModel(str), PlainCodec(), tls_cert=cert, tls_key=key, max_connection_age_s=2) as server:
        for failure in send_away(server, credentials, connections=3):
            assert "Connection refused" in failure
