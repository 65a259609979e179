"""Callers that are slow to send requests or to read answers."""

import asyncio
import threading

import pytest

from mlflow_grpc.calls import idle, open_calls
from mlflow_grpc.engine.admission import Stage
from mlflow_grpc.services import dispatch
from tests.support.http2 import Connection
from tests.support.models import FunctionModel, PlainCodec
from tests.support.servers import Caller, serving

MEGABYTE = 1 << 20
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
