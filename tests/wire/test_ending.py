"""What callers get that call while the server ends."""

import asyncio
import threading
import time
from collections import Counter

from mlflow_grpc.services import calls
from tests.support.http2 import Connection
from tests.support.models import FunctionModel, PlainCodec
from tests.support.servers import Caller, serving

UNAVAILABLE = "14"
MESSAGE = b"\n\x05hello"
ON_THE_WIRE = 300


def test_calls_that_grpc_holds_are_refused_and_not_cancelled():
    """Those that have reached gRPC when the server is told to end, and that it has not handed over yet, are UNAVAILABLE,
    which callers send again elsewhere; gRPC by itself says CANCELLED of them.
    """
    with serving(FunctionModel(str), PlainCodec()) as server, Connection(server.address) as connection:
        blocked, all_there = threading.Event(), threading.Event()

        async def end() -> None:
            blocked.set()
            assert all_there.wait(30)  # Nothing is handed over while the event loop stands still.
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


def test_callers_that_go_on_calling_do_not_hold_up_the_end(monkeypatch):
    """They are refused for some time, and then the server ends all the same."""
    monkeypatch.setattr(calls, "QUIET_S", 1.0)
    monkeypatch.setattr(calls, "LONGEST_NOISE_S", 0.5)
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
