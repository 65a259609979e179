"""An overloaded server, over real gRPC."""

import logging
import threading
from typing import Any

import grpc
import pytest

from mlflow_grpc import logs, protos
from mlflow_grpc.calls import refusals
from mlflow_grpc.errors import ServingError, Status
from tests.support.models import FunctionModel, GatedModel, PlainCodec
from tests.support.servers import Caller, serving

PUSHBACK = "grpc-retry-pushback-ms"


def start(call, text, **more: Any):
    """Starts a call without waiting for it."""
    return call.raw.future(protos.Input(value=text).SerializeToString(), **{"timeout": 30, **more})


def outcome(future):
    error = future.exception()
    return error.code() if error else grpc.StatusCode.OK


def test_calls_over_the_limit_are_refused_at_once():
    """Calls over the limit are RESOURCE_EXHAUSTED with a retry delay, before their payload is read; admitted calls are
    answered."""
    model = GatedModel()
    with serving(model, PlainCodec(), threads=2, queue_calls=5) as server, Caller(server.address) as call:
        inside = [start(call, "hold") for _ in range(2)]
        model.wait_until_entered(2)
        inside += [start(call, f"waits {number}") for number in range(3)]
        refused: list[Any] = []
        while len(refused) < 20:  # The first calls may be admitted before those that wait.
            attempt = start(call, "late", timeout=0.5)
            error = attempt.exception()
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                refused.append(error)
        for error in refused:
            assert 5 <= int(dict(error.trailing_metadata())[PUSHBACK]) <= 6300
        # Even an invalid message is not parsed.
        with pytest.raises(grpc.RpcError) as caught:
            call.raw(b"\xff", timeout=10)
        problem: Any = caught.value
        assert problem.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        health: Any = call.channel.unary_unary("/grpc.health.v1.Health/Check")
        assert health(b"", timeout=1) == b"\x08\x01"
        model.let_go()
        assert [outcome(future) for future in inside] == [grpc.StatusCode.OK] * 5
        assert call("after") == "<after>"


def test_refusals_are_counted_in_one_line(caplog, monkeypatch):
    """The line has the number of refusals and the reason; a line per refusal would cost as much as the refusal."""
    monkeypatch.setattr(refusals, "INTERVAL_S", 0.5)

    def lines() -> list[Any]:
        logs.calls.flush()
        return [record for record in caplog.records if record.getMessage() in ("refused", "call")]

    model = GatedModel()
    with serving(model, PlainCodec(), threads=1, queue_calls=1) as server, Caller(server.address) as call:
        inside = start(call, "hold")
        model.wait_until_entered(1)
        with caplog.at_level(logging.WARNING, "mlflow_grpc.call"):
            assert {outcome(start(call, "late")) for _ in range(20)} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            server.wait_until(lambda: sum(line.fields["calls"] for line in lines()) == 20)
        model.let_go()
        assert outcome(inside) is grpc.StatusCode.OK
    assert {line.fields["reason"] for line in lines()} == {"REQUEST_LIMIT_EXCEEDED"}
    assert len(lines()) <= 3


@pytest.mark.deep
def test_a_burst_is_refused_and_not_cancelled():
    """With more calls at once than gRPC's core queues by default, each is RESOURCE_EXHAUSTED and none is CANCELLED."""
    with serving(FunctionModel(str), PlainCodec(), queue_calls=50) as server, Caller(server.address) as call:
        outcomes = {outcome(future) for future in [start(call, str(number)) for number in range(4000)]}
        assert outcomes <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert call("after") == "after"


def test_resource_exhausted_of_a_model_forbids_retries():
    """RESOURCE_EXHAUSTED from a model is not temporary, so clients must not retry."""

    def function(text):
        raise ServingError("quota", status=Status.RESOURCE_EXHAUSTED)

    with serving(FunctionModel(function), PlainCodec()) as server, Caller(server.address) as call:
        with pytest.raises(grpc.RpcError) as caught:
            call("x")
        problem: Any = caught.value
        assert dict(problem.trailing_metadata())[PUSHBACK] == "-1"


def test_expired_work_does_not_starve_fresh_calls():
    """With ten times as many calls as can be answered before their deadline, most of the model's time goes into answers
    that reach a caller, although calls wait in order and nearly expire before their turn."""
    takes_s, deadline_s, calls = 0.02, 0.25, 250
    runs = []
    pause = threading.Event()

    def function(text):
        runs.append(text)
        pause.wait(takes_s)
        return text

    with serving(FunctionModel(function), PlainCodec(), threads=2) as server, Caller(server.address) as call:
        futures = [start(call, str(number), timeout=deadline_s) for number in range(calls)]
        outcomes = [outcome(future) for future in futures]
        assert set(outcomes) <= {
            grpc.StatusCode.OK,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,  # Of the last calls, because those before them take too long.
        }
        answered = outcomes.count(grpc.StatusCode.OK)
        assert len(runs) < calls / 2
        assert answered > len(runs) / 2
        assert call("after") == "after"
