"""Versions that bring different code along, which a server serves by replacing its worker processes."""

import os
import re
import signal
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from mlflow_grpc import protos
from tests.rollout.conftest import ROW, VERSION_KEY, predicted
from tests.support.rollout_registry import OWN, OWN_DIES, OWN_FAILS, OWN_OTHER, OWN_OTHER_SIGNATURE
from tests.support.typed import TypedCaller

pytestmark = pytest.mark.slow

URI = f"models:/{OWN}@champion"
OTHER_CODE = (predicted(3000), OWN_OTHER)


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_another_process_serves_other_code(track, registry):
    """A version with the same code is swapped within the process, one with other code by another process, and back.

    A client needs no new connection, counters go on, and no file or process is left.
    """
    server = track("--keep-previous", "0", uri=URI)
    assert server.answer() == (predicted(1), "1")
    registry.move("2", name=OWN)
    server.wait_for_version("2")
    server.wait_until_unloaded("1")
    assert server.answer() == (predicted(2), "2")
    assert len(server.worker_pids) == 1
    registry.move(OWN_OTHER, name=OWN)
    server.wait_for_version(OWN_OTHER)
    server.wait_until_replaced()
    assert server.answer() == OTHER_CODE
    assert (server.described().version, server.described().error) == (OWN_OTHER, "")
    scrape = server.metrics()
    assert scrape.total("mlflow_grpc_model_swaps_total", result="ok", version=OWN_OTHER) == 2
    assert scrape.total("mlflow_grpc_requests_total", version=OWN_OTHER, grpc_code="OK") == 3
    assert scrape.total("mlflow_grpc_model_behind_registry") == 0
    registry.move("1", name=OWN)
    server.wait_for_version("1")
    server.wait_until_replaced(times=2)
    assert server.answer() == (predicted(1), "1")
    old, *_ = server.worker_pids
    assert not is_alive(old)
    server.process.signal(signal.SIGTERM)
    assert server.process.wait() == 0
    assert server.directories == []
    assert "Traceback" not in server.process.output


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        pytest.param(OWN_FAILS, "cannot be loaded: .*the helper of version 4 fails", marks=pytest.mark.deep),
        (OWN_OTHER_SIGNATURE, r"it breaks callers of the served version: input\.b: added and required"),
        pytest.param(OWN_DIES, "the new worker ended with code 7 while it loaded", marks=pytest.mark.deep),
    ],
)
def test_a_process_that_cannot_serve_changes_nothing(track, registry, version, reason):
    """The old worker answers, the log, a metric and the list of models say why, and another version is served."""
    server = track(uri=URI)
    registry.move(version, name=OWN)
    line = server.process.wait_for(rf"version {version} is not served: (.*{reason}.*)")
    assert "Meanwhile version 1 goes on" in line[0]
    assert server.answer() == (predicted(1), "1")
    assert re.search(reason, server.described().error)
    scrape = server.metrics()
    assert scrape.total("mlflow_grpc_model_swaps_total", result="failed") >= 1
    assert scrape.total("mlflow_grpc_model_behind_registry") == 1
    registry.move(OWN_OTHER, name=OWN)
    server.wait_for_version(OWN_OTHER)
    server.wait_until_replaced()
    assert (server.answer(), server.described().error) == (OTHER_CODE, "")


def test_workers_are_replaced_one_after_the_other(track, registry):
    """With two workers, at most one more process runs at a time, and both serve the version in the end."""
    server = track("-w", "2", uri=URI)
    registry.move(OWN_OTHER, name=OWN)
    server.wait_for_version(OWN_OTHER, times=2)
    server.wait_until_replaced(times=2)
    lines = [line for line in server.process.stderr if re.search(r"worker \d started|worker \d .* has ended", line)]
    running = 0
    for line in lines:
        running += 1 if "started" in line else -1
        assert running <= 3
    assert running == 2
    assert server.answer() == OTHER_CODE
    assert server.metrics().total("mlflow_grpc_model_ready", version=OWN_OTHER) == 2


@pytest.mark.deep
def test_calls_end_in_the_process_that_they_began_in(track, registry):
    """A stream that is open while its worker is replaced keeps its version, and the worker ends after it."""
    server = track(uri=URI)
    payloads: SimpleQueue[str | None] = SimpleQueue()
    rpc: Any = server.call.channel.stream_stream("/MLflowStream/predict_many")
    answers = rpc((protos.Input(value=text).SerializeToString() for text in iter(payloads.get, None)), timeout=60)

    def send() -> str:
        payloads.put(ROW)
        output: Any = protos.Output.FromString(next(answers))
        return str(output.value)

    assert send() == predicted(1)
    registry.move(OWN_OTHER, name=OWN)
    server.wait_for_version(OWN_OTHER)
    while (answer := server.answer()) != OTHER_CODE:  # The connection is about to be closed.
        assert answer == (predicted(1), "1")
    assert send() == predicted(1)
    assert is_alive(server.worker_pids[0])
    payloads.put(None)
    assert list(answers) == []
    assert dict(answers.trailing_metadata())[VERSION_KEY] == "1"
    server.wait_until_replaced()


@pytest.mark.deep
def test_typed_clients_go_on_with_the_next_process(track, registry):
    """The messages of a client are taken by the process that replaces the one it got them from, and by a third one."""
    server = track(uri=URI)
    before = TypedCaller(server.call.channel)
    contract = (("mlflow-contract", server.described().contract),)
    message = before.input("own_predict", {"a": 1.0})
    output: Any = GetMessageClass(before.method("own_predict").output_type)
    rpc: Any = server.call.channel.unary_unary(
        "/model_grpc_service.ModelgRPCService/own_predict", response_deserializer=output.FromString
    )
    answers: list[int] = []
    for version in (OWN_OTHER, "2"):
        registry.move(version, name=OWN)
        server.wait_for_version(version)
        server.wait_until_replaced(times=len(answers) + 1)
        answers.append(rpc(message.SerializeToString(), timeout=30, metadata=contract).prediction)
    assert answers == [3000, 2]


@pytest.mark.deep
def test_a_worker_that_dies_is_replaced_with_the_served_version(track, registry):
    """A worker that replaced another one is replaced like any other, with the version that it served."""
    server = track(uri=URI)
    registry.move(OWN_OTHER, name=OWN)
    server.wait_for_version(OWN_OTHER)
    server.wait_until_replaced()
    registry.store.delete_registered_model_alias(OWN, "champion")  # The registry cannot say it any more.
    os.kill(server.worker_pids[-1], signal.SIGKILL)
    server.process.wait_for("ended with code -9")
    server.process.wait_for(r"worker \d started", times=3)
    while True:
        try:
            assert server.answer() == OTHER_CODE
            break
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
