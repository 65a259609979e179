"""Callers that are slow to send requests or to read answers."""

import asyncio
import socket
import threading
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlflow_grpc.calls import idle, open_calls
from mlflow_grpc.engine import engine
from mlflow_grpc.engine.admission import Stage
from mlflow_grpc.services import dispatch, streams
from tests.support.http2 import Connection
from tests.support.models import FunctionModel, PartsModel, PlainCodec
from tests.support.servers import Caller, serving

pytestmark = pytest.mark.slow

MEGABYTE = 1 << 20
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
HealthStub: Any = health_pb2_grpc.HealthStub
OK, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = "0", "4", "8"
MESSAGE = b"\n\x05large"


def answering_a_megabyte(**settings):
    """A server that answers with a megabyte on request."""
    model = FunctionModel(lambda text: "x" * MEGABYTE if text == "large" else text)
    return serving(model, PlainCodec(), **settings)


def admission(server):
    (entry,) = server.server.catalog.entries
    return entry.engine.admission


class Drain:
    """A server that has begun to drain."""

    def __init__(self, server):
        self._lost: list[int] = []
        self._thread = threading.Thread(target=lambda: self._lost.append(server.run(server.server.drain)))
        self._thread.start()
        server.wait_until(lambda: admission(server).stage is Stage.DRAINING)

    def waits_for_the_answer_on(self, connection):
        """Checks that the server does not end before the only call on a connection has been read, and that it loses
        none."""
        self._thread.join(3 * idle.DRAIN_IDLE_S)
        assert self._thread.is_alive()
        connection.take_all()
        connection.wait_for_statuses(1)
        self._thread.join(30)
        assert self._lost == [0]
        assert connection.statuses == {1: OK}


def test_unread_answers_are_limited():
    """Unread answers are kept up to the limit on payloads. Further callers get an error, and small answers still pass."""
    with (
        answering_a_megabyte(queue_bytes=4 * MEGABYTE + 1000) as server,
        Connection(server.address) as connection,
        Caller(server.address) as call,
    ):
        for _ in range(20):
            connection.call(MESSAGE)
        connection.wait_for_statuses(16)
        assert set(connection.statuses.values()) == {RESOURCE_EXHAUSTED}
        assert admission(server).unsent_responses == 4
        assert call("small") == "small"
        status, message = call.outcome("large")
        assert status == "RESOURCE_EXHAUSTED"
        assert "not read" in str(message)
        connection.take_all()
        connection.wait_for_statuses(20)
        assert sorted(connection.statuses.values()) == [OK] * 4 + [RESOURCE_EXHAUSTED] * 16
        assert len(call("large")) == MEGABYTE
        server.wait_until(lambda: admission(server).unsent_responses == 0)


def test_a_single_answer_over_the_limit_is_sent():
    """An answer over the limit is sent if it is alone, like a payload."""
    with answering_a_megabyte(queue_bytes=1024) as server, Caller(server.address) as call:
        for _ in range(3):
            assert len(call("large")) == MEGABYTE
            server.wait_until(lambda: admission(server).unsent_responses == 0)


def test_answers_of_departed_callers_do_not_count():
    """Answers of callers that left no longer count."""
    with answering_a_megabyte() as server:
        with Connection(server.address) as connection:
            for _ in range(5):
                connection.call(MESSAGE)
            server.wait_until(lambda: admission(server).unsent_responses == 5)
        server.wait_until(lambda: admission(server).unsent_responses == 0)


def test_shutdown_waits_for_answers_being_read():
    """A caller on a slow connection gets its complete answer."""
    with answering_a_megabyte() as server, Connection(server.address) as connection:
        connection.call(MESSAGE)
        server.wait_until(lambda: admission(server).unsent_responses == 1)
        drain = Drain(server)
        drain.waits_for_the_answer_on(connection)


def test_shutdown_waits_for_answers_of_running_calls():
    """A call that is in the model at shutdown gets its complete answer, however large."""
    entered, let_go = threading.Event(), threading.Event()

    def answer(text):
        entered.set()
        assert let_go.wait(20)
        return "x" * MEGABYTE

    with serving(FunctionModel(answer), PlainCodec()) as server, Connection(server.address) as connection:
        connection.call(MESSAGE)
        assert entered.wait(20)
        drain = Drain(server)
        let_go.set()
        server.wait_until(lambda: admission(server).unsent_responses == 1)
        drain.waits_for_the_answer_on(connection)


def test_shutdown_reports_unread_answers():
    """Unread answers count as unfinished calls in the log."""
    with answering_a_megabyte(drain_timeout_s=0.2) as server, Connection(server.address) as connection:
        connection.call(MESSAGE)
        server.wait_until(lambda: admission(server).unsent_responses == 1)
        assert server.run(server.server.drain) == 1


def test_incomplete_calls_are_limited():
    """The number of incomplete calls has the limit of calls; one that ends makes room."""
    bound = 200
    with answering_a_megabyte(queue_calls=bound) as server, Caller(server.address) as call:
        with Connection(server.address) as connection:
            for _ in range(bound + 30):
                connection.call(None)
            connection.wait_for_statuses(30)
            assert set(connection.statuses.values()) == {RESOURCE_EXHAUSTED}
            assert call.outcome("small")[0] == "RESOURCE_EXHAUSTED"
        server.wait_until(lambda: admission(server).open_calls == 0)
        assert call("small") == "small"


def test_streams_have_a_limit_of_their_own():
    """The number of open streams is limited. Idle streams take no room of calls, and one that ends makes room."""
    bound = 200
    with answering_a_megabyte(queue_calls=bound) as server, Caller(server.address) as call:
        with Connection(server.address) as connection:
            for _ in range(bound + 30):
                connection.call(None, "/MLflowStream/predict_many")
            connection.wait_for_statuses(30)
            assert set(connection.statuses.values()) == {RESOURCE_EXHAUSTED}
            assert admission(server).open_streams == bound
            assert call("small") == "small"
        server.wait_until(lambda: admission(server).open_streams == 0)


@pytest.fixture
def impatient(monkeypatch):
    """Settings of a server that waits a second for its callers to read messages of a stream."""
    monkeypatch.setattr(engine, "MAX_UNREAD_S", 1.0)
    return {"timeout_s": 1.0}


class Megabytes(PartsModel):
    """A model that answers in ten chunks of a megabyte."""

    def predict_stream(self, data, params):
        try:
            for _ in range(10):
                yield "x" * MEGABYTE
        finally:
            self.closed.set()


def test_a_streamed_answer_that_is_not_read_gives_up_its_room(impatient):
    """A caller that does not read a chunk in time holds neither room nor the model's iterator. It gets an error once it
    reads on."""
    model = Megabytes()
    with serving(model, PlainCodec(), queue_calls=1, **impatient) as server, Connection(server.address) as connection:
        room = admission(server)
        connection.call(MESSAGE, "/MLflowStream/predict_stream")
        assert model.closed.wait(30)
        server.wait_until(lambda: (room.admitted_requests, room.open_calls) == (0, 0))
        with Caller(server.address) as call:
            assert call("small") == "small"
        connection.take_all()
        connection.wait_for_statuses(1)
        assert connection.statuses == {1: DEADLINE_EXCEEDED}
        server.wait_until(lambda: (room.admitted_requests, room.open_calls) == (0, 0))


def test_events_that_are_not_read_give_up_their_room(impatient):
    """Server-sent events that the caller does not read in time give up their room and end with an error event."""
    model = Megabytes()
    with (
        serving(model, PlainCodec(), queue_calls=1, http_port=0, **impatient) as server,
        socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 30) as peer,
    ):
        room = admission(server)
        head = b"POST /invocations HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\nconnection: close\r\n"
        peer.sendall(head + b"content-type: application/json\r\ncontent-length: 1\r\n\r\nx")
        assert model.closed.wait(30)
        server.wait_until(lambda: (room.admitted_requests, room.open_calls) == (0, 0))
        received = b"".join(iter(lambda: peer.recv(MEGABYTE), b""))
        assert b"no message of it was read for 1 s" in received[-1000:]
        server.wait_until(lambda: (room.admitted_requests, room.open_calls) == (0, 0))


def test_a_stream_whose_answers_are_not_read_ends(impatient, monkeypatch):
    """The server drops the answers of a stream whose caller does not read, and ends the stream once it reads on."""
    dropped, drop = threading.Event(), streams._ResponseQueue.drop

    def noted(queue):
        dropped.set()
        return drop(queue)

    monkeypatch.setattr(streams._ResponseQueue, "drop", noted)
    with answering_a_megabyte(**impatient) as server, Connection(server.address) as connection:
        connection.call(MESSAGE, "/MLflowStream/predict_many", then=MESSAGE)
        assert dropped.wait(30)
        connection.take_all()
        connection.wait_for_statuses(1)
        assert connection.statuses == {1: DEADLINE_EXCEEDED}
        server.wait_until(lambda: admission(server).open_streams == 0)


@pytest.mark.parametrize("path", ["/MLflow/predict", "/grpc.health.v1.Health/Check"])
def test_incomplete_calls_end_after_some_time(monkeypatch, path):
    """An incomplete call ends after some time. Streams do not, because their next request may come at any time."""
    monkeypatch.setattr(open_calls, "MAX_READ_S", 0.1)
    monkeypatch.setattr(dispatch, "CHECK_INTERVAL_S", 0.05)
    with answering_a_megabyte(timeout_s=0.1) as server, Connection(server.address) as connection:

        async def begin() -> None:
            watching.append(asyncio.create_task(server.server.watch()))

        async def end() -> None:
            watching.pop().cancel()

        watching: list[asyncio.Task[None]] = []
        server.run(begin)
        connection.call(None, "/MLflowStream/predict_many")
        connection.call(None, path)
        connection.wait_for_statuses(1)
        server.run(end)
        assert connection.statuses == {3: DEADLINE_EXCEEDED}


@pytest.fixture
def unread_watcher():
    """A server, and a watcher of its health that reads no message."""
    with (
        answering_a_megabyte(drain_timeout_s=5.0) as server,
        Connection(server.address, window_bytes=0) as connection,
        grpc.insecure_channel(server.address) as channel,
    ):
        connection.call(b"", "/grpc.health.v1.Health/Watch")
        connection.wait_until_read()
        health = HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == SERVING
        yield server, health


def test_an_unread_watcher_delays_no_change_of_health(unread_watcher):
    """Health changes although a watcher reads nothing, for checks and for other watchers."""
    server, health = unread_watcher
    watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=20)
    assert next(watch).status == SERVING
    server.run(server.server.drain)
    assert next(watch).status == NOT_SERVING
    assert health.Check(health_pb2.HealthCheckRequest()).status == NOT_SERVING


@pytest.mark.deep
def test_an_unread_watcher_delays_no_shutdown(unread_watcher):
    """The lame duck, the drain and the stop end although a watcher reads nothing."""
    server, _ = unread_watcher
    server.run(lambda: asyncio.wait_for(server.server.lame_duck(0.0), 20))
    assert server.run(lambda: asyncio.wait_for(server.server.drain(), 20)) == 0
    server.run(lambda: asyncio.wait_for(server.server.stop(), 20))
