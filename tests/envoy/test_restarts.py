"""Servers behind Envoy are restarted, killed and overloaded under load."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from mlflow_grpc_client import Client

from tests.envoy.pair import Pair
from tests.process.conftest import Held, payload
from tests.support.servers import Caller
from tests.wire.test_overload import PUSHBACK

pytestmark = pytest.mark.slow

RESTARTS = int(os.environ.get("RESTARTS", "20"))
SETTLED_S = 1.0
"""Time around a kill in which calls may fail, in seconds: Envoy has seen the end of its connections afterwards."""


def restart(folder: Path, count: int, lame_duck_s: int) -> None:
    """Restarts the servers in turns under load, and checks that no call failed.

    Without a lame duck phase, servers refuse calls before Envoy knows that they end, so it has to repeat some.
    """
    with Pair(folder, lame_duck_s=lame_duck_s) as pair:
        with pair.load() as load:
            for number in range(count):
                pair.end(number % 2, signal.SIGTERM)
        retries = pair.envoy.count("upstream_rq_retry")
    print(f"{count} restarts, {load.calls} calls, {dict(load.failures)} failed, {retries} retries by Envoy")
    assert not load.failures
    assert retries or lame_duck_s


def kill(folder: Path, count: int) -> None:
    """Kills servers under load, and checks that only calls in flight failed, all with UNAVAILABLE."""
    kills_s = []
    with Pair(folder) as pair, pair.load() as load:
        for number in range(count):
            kills_s.append(time.monotonic())
            pair.end(number % 2, signal.SIGKILL)
    print(f"{count} kills, {load.calls} calls, {dict(load.failures)} failed")
    assert all(failure.startswith("UNAVAILABLE:") for failure in load.failures)
    assert all(any(abs(began_s - kill_s) < SETTLED_S for kill_s in kills_s) for began_s in load.failed_began_s)


def test_no_call_fails_while_servers_restart(tmp_path):
    """Three restarts without a lame duck phase lose no call, although the servers refuse some and no client retries."""
    restart(tmp_path, 3, lame_duck_s=0)


@pytest.mark.scale
@pytest.mark.timeout(120 + 40 * RESTARTS)
@pytest.mark.parametrize("lame_duck_s", [0, 5])
def test_no_call_fails_in_many_restarts(tmp_path, lame_duck_s):
    """Twenty restarts lose no call, with and without a lame duck phase."""
    restart(tmp_path, RESTARTS, lame_duck_s)


@pytest.mark.deep
def test_only_calls_in_flight_fail_when_a_server_is_killed(tmp_path):
    """After each of two kills, all new calls go to the other server."""
    kill(tmp_path, 2)


@pytest.mark.scale
@pytest.mark.timeout(120 + 40 * RESTARTS)
def test_only_calls_in_flight_fail_in_many_kills(tmp_path):
    """Twenty kills fail no call that begins later."""
    kill(tmp_path, RESTARTS)


def test_overload_reaches_the_caller(tmp_path):
    """Envoy passes on a refusal with its delay and does not repeat the call; a client that obeys the delay is answered."""
    with Pair(tmp_path, "--threads", "1", "--queue-calls", "1") as pair:
        callers = [Caller(address) for address in pair.addresses]
        held = [Held(caller, tmp_path, name) for caller, name in zip(callers, ("first", "second"), strict=True)]
        with Caller(pair.envoy.address) as call, pytest.raises(grpc.RpcError) as caught:
            call(payload("a"))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailers: dict[str, Any] = dict(caught.value.trailing_metadata())  # type: ignore[arg-type]
        assert int(trailers[PUSHBACK]) > 0
        assert pair.envoy.count("upstream_rq_retry") == 0

        answers = []
        refused = pair.envoy.count("grpc.8")
        with Client(pair.envoy.address, timeout_s=60) as client:
            waiting = threading.Thread(target=lambda: answers.append(client.predict({"inputs": ["a"]})))
            waiting.start()
            pair.envoy.wait_until(lambda: pair.envoy.count("grpc.8") > refused)
            for call_in_model in held:
                call_in_model.let_go()
            waiting.join(60)
        assert answers == [["a"]]
        assert [call_in_model.result()[0] for call_in_model in held] == ["OK", "OK"]
        for caller in callers:
            caller.channel.close()
