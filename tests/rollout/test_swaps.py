"""Versions that a server swaps while it runs, with a real registry."""

import os
import re
import signal
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest
import requests
from _mlflow_grpc_protocol.arrow_ipc import encapsulated, pieces_of
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

from mlflow_grpc import protos
from tests.rollout.conftest import ROW, VERSION_KEY, Tracking, predicted
from tests.support import tensors
from tests.support.rollout_registry import (
    BROKEN_PICKLE,
    FAILS_ON_EXAMPLE,
    MISSING_PACKAGE,
    OTHER_SIGNATURE,
    OWN,
    WIDER,
)
from tests.support.typed import TypedCaller

pytestmark = pytest.mark.slow

SERVING = health_pb2.HealthCheckResponse(status="SERVING").SerializeToString()


PREDICT = "/model_grpc_service.ModelgRPCService/churn_predict"


def test_an_alias_that_moves_is_followed(track, registry):
    """The answers, their trailers and headers, health and the list of models change; the files are deleted."""
    server = track("--keep-previous", "0")
    assert server.answer() == (predicted(1), "1")
    registry.move("2")
    server.wait_for_version("2")
    assert server.answer() == (predicted(2), "2")
    response = requests.post(
        f"{server.http_url}/invocations", ROW, headers={"content-type": "application/json"}, timeout=30
    )
    assert (response.json(), response.headers[VERSION_KEY]) == ({"predictions": [2]}, "2")
    check: Any = server.call.channel.unary_unary("/grpc.health.v1.Health/Check")
    for name in ("churn", "churn/2"):
        assert check(health_pb2.HealthCheckRequest(service=name).SerializeToString(), timeout=30) == SERVING
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        check(health_pb2.HealthCheckRequest(service="churn/1").SerializeToString(), timeout=30)
    assert (server.described().version, server.described().error) == ("2", "")
    server.wait_until_unloaded("1")
    assert len(server.directories) == 1
    scrape = server.metrics()
    assert scrape.total("mlflow_grpc_model_swaps_total", result="ok", version="2") == 1
    assert scrape.total("mlflow_grpc_model_behind_registry") == 0
    assert scrape.total("mlflow_grpc_requests_total", version="2", grpc_code="OK") == 3
    server.process.signal(signal.SIGTERM)
    assert server.process.wait() == 0
    assert server.directories == []


@pytest.mark.deep
def test_callers_of_other_protocols_are_answered_by_the_published_version(track, registry):
    """Tensors and tables get the new version and its trailer, and keep no replaced version in memory."""
    server = track("--keep-previous", "0")
    for version in ("1", "2"):
        if version == "2":
            registry.move(version)
            server.wait_for_version(version)
        assert infer(server) == (int(version), version, version)
        assert exchange(server) == (int(version), version)
    server.wait_until_unloaded("1")


def infer(server: Tracking, *metadata: tuple[str, str], version: str = "") -> tuple[int, str, str]:
    """Returns the prediction of a ModelInfer, its version in the response, and that in the trailers."""
    request = tensors.request("churn", ("a", "FP64", [1.0]))
    request.model_version = version
    rpc: Any = server.call.channel.unary_unary(f"/{tensors.NAME}/ModelInfer")
    data, call = rpc.with_call(request.SerializeToString(), timeout=30, metadata=metadata)
    response = protos.message_named("inference.ModelInferResponse").FromString(data)
    (number,) = np.frombuffer(response.raw_output_contents[0], np.int64)
    return int(number), response.model_version, dict(call.trailing_metadata())[VERSION_KEY]


def exchange(server: Tracking, *metadata: tuple[str, str], path: tuple[str, ...] = ("churn",)) -> tuple[int, str]:
    """Returns the prediction of a DoExchange, and the version in the trailers."""
    data_class = protos.message_named("arrow.flight.protocol.FlightData")
    batch = pa.record_batch({"a": [1.0]})
    schema, rows = (pieces_of(memoryview(message.serialize())) for message in (batch.schema, batch))
    messages = [data_class(data_header=header, data_body=bytes(body)) for header, body in (schema, rows)]
    messages[0].flight_descriptor.MergeFrom(
        protos.message_named("arrow.flight.protocol.FlightDescriptor")(type="PATH", path=path)
    )
    rpc: Any = server.call.channel.stream_stream("/arrow.flight.protocol.FlightService/DoExchange")
    call = rpc((message.SerializeToString() for message in messages), timeout=30, metadata=metadata)
    answers = [data_class.FromString(data) for data in call]
    stream = b"".join(
        bytes(piece) for answer in answers for piece in encapsulated(answer.data_header, answer.data_body)
    )
    (number,) = pa.ipc.open_stream(stream).read_all().column(0).to_pylist()
    return number, dict(call.trailing_metadata())[VERSION_KEY]


def test_a_rollback_is_instant(track, registry):
    """The previous version is still loaded: it is published without being fetched again."""
    server = track()
    registry.move("2")
    server.wait_for_version("2")
    registry.move("1")
    server.wait_for_version("1")
    assert server.answer() == (predicted(1), "1")
    assert server.process.output.count("loading version") == 1
    assert len(server.directories) == 2


@pytest.mark.deep
def test_a_version_that_is_kept_is_answered_by_its_version(track, registry):
    """Calls that name the previous version get it while it is kept; then they are NOT_FOUND, and so is its health."""
    server = track("--keep-previous", "3")
    check: Any = server.call.channel.unary_unary("/grpc.health.v1.Health/Check")
    request = health_pb2.HealthCheckRequest(service="churn/1").SerializeToString()
    registry.move("2")
    server.wait_for_version("2")
    assert server.answer(mlflow_model="churn/1") == (predicted(1), "1")
    assert server.answer(mlflow_model="churn/2") == (predicted(2), "2")
    assert server.answer(mlflow_model="churn") == (predicted(2), "2")
    assert infer(server, version="1") == (1, "1", "1")
    assert check(request, timeout=30) == SERVING
    server.wait_until_unloaded("1")
    with pytest.raises(grpc.RpcError, match=r"NOT_FOUND[\s\S]*There are: churn/2"):
        server.answer(mlflow_model="churn/1")
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        check(request, timeout=30)


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (OTHER_SIGNATURE, r"it breaks callers of the served version: input\.b: added and required"),
        (MISSING_PACKAGE, "requirements are not met by this environment: package-that-is-not-installed"),
        (FAILS_ON_EXAMPLE, "it fails on its own input example: ValueError: version 6 fails"),
        pytest.param(BROKEN_PICKLE, "cannot be loaded: ", marks=pytest.mark.deep),
    ],
)
def test_a_version_that_is_refused_changes_nothing(track, registry, version, reason):
    """The served version goes on; the log, a metric and the list of models say why, and another version is served."""
    server = track()
    registry.move(version)
    line = server.process.wait_for(rf"version {version} is not served: (.*{reason}.*)")
    assert "Meanwhile version 1 goes on" in line[0]
    assert server.answer() == (predicted(1), "1")
    described = server.described()
    assert described.state == type(described).READY
    assert re.search(reason, described.error)
    scrape = server.metrics()
    assert scrape.total("mlflow_grpc_model_swaps_total", result="failed") >= 1
    assert scrape.total("mlflow_grpc_model_behind_registry") == 1
    registry.move("2")
    server.wait_for_version("2")
    assert (server.answer(), server.described().error) == ((predicted(2), "2"), "")


def test_a_breaking_version_is_served_if_that_is_allowed(track, registry):
    """With --allow-incompatible, the log lists the changes, and old typed clients have to fetch the messages again."""
    server = track("--allow-incompatible")
    contract = (("mlflow-contract", server.described().contract),)
    message = TypedCaller(server.call.channel).input("churn_predict", {"a": 1.0})
    registry.move(OTHER_SIGNATURE)
    server.wait_for_version(OTHER_SIGNATURE)
    server.process.wait_for("breaks callers of the served version: input.b: added and required")
    rpc: Any = server.call.channel.unary_unary(PREDICT)
    with pytest.raises(grpc.RpcError, match="have changed since the client of this call got them"):
        rpc(message.SerializeToString(), timeout=30, metadata=contract)
    row = '{"dataframe_split": {"columns": ["a", "b"], "data": [[1.0, 2.0]]}}'
    assert server.answer(row) == (predicted(4), OTHER_SIGNATURE)
    assert TypedCaller(server.call.channel)("churn_predict", {"a": 1.0, "b": 2.0}).prediction == 4


def test_typed_callers_go_on(track, registry):
    """Calls of old clients are taken by compatible versions, and by one that was served before: it lacks a new column."""
    server = track()
    before = TypedCaller(server.call.channel)
    contract = server.described().contract
    message = before.input("churn_predict", {"a": 1.0})
    output: Any = GetMessageClass(before.method("churn_predict").output_type)
    rpc: Any = server.call.channel.unary_unary(PREDICT, response_deserializer=output.FromString)

    def call() -> int:
        answer = rpc(message.SerializeToString(), timeout=30, metadata=(("mlflow-contract", contract),))
        return int(answer.prediction)

    answers = [call()]
    for version in ("2", WIDER, "1"):
        registry.move(version)
        server.wait_for_version(version)
        answers.append(call())
        if version == WIDER:
            after = TypedCaller(server.call.channel)
            assert after("churn_predict", {"a": 1.0, "aa": 2.0}).prediction == int(WIDER)
            assert server.described().contract != contract
            registry.move("3")
            server.process.wait_for(r"version 3 is not served: it breaks callers of the served version: input\.aa: rem")
    assert answers == [1, 2, int(WIDER), 1]


def test_an_alias_that_vanishes_changes_nothing(track, registry):
    """One line in the log, and the version goes on; an alias that comes back is followed."""
    server = track()
    registry.store.delete_registered_model_alias("churn", "champion")
    server.process.wait_for("has no such model or alias any more, and nothing changes")
    polls = server.metrics().total("mlflow_grpc_registry_polls_total", result="failed")
    while server.metrics().total("mlflow_grpc_registry_polls_total", result="failed") < polls + 3:
        assert server.answer() == (predicted(1), "1")
    assert server.process.output.count("no such model or alias") == 1
    registry.move("2")
    server.process.wait_for("the registry answers again")
    server.wait_for_version("2")


def test_a_version_that_is_not_ready_waits(track, registry):
    """A version whose files are not complete is not fetched; once it is ready, it is served."""
    server = track()
    registry.set_status("3", "PENDING_REGISTRATION")
    registry.move("3")
    server.process.wait_for("version 3 is not served: its status in the registry is PENDING_REGISTRATION")
    assert "loading version" not in server.process.output
    registry.set_status("3", "READY")
    server.wait_for_version("3")


def test_calls_in_flight_end_on_their_version(track, registry):
    """A stream that is open while another version is published keeps its version, and the next call has the new one."""
    server = track("--keep-previous", "0")
    stream: Any = server.call.channel.stream_stream("/MLflowStream/predict_many")
    answers, send = _open_stream(stream)
    assert send(ROW) == predicted(1)
    registry.move("2")
    server.wait_for_version("2")
    assert server.answer() == (predicted(2), "2")
    assert send(ROW) == predicted(1)
    assert "is unloaded" not in server.process.output
    send(None)
    assert dict(answers.trailing_metadata())[VERSION_KEY] == "1"
    server.wait_until_unloaded("1")


def _open_stream(stream: Any) -> tuple[Any, Any]:
    """Returns the answers of a stream, and a function that sends a payload and returns its answer; None ends it."""
    payloads: SimpleQueue[str | None] = SimpleQueue()
    answers = stream((protos.Input(value=text).SerializeToString() for text in iter(payloads.get, None)), timeout=60)

    def send(text: str | None) -> str:
        payloads.put(text)
        if text is None:
            assert list(answers) == []
            return ""
        output: Any = protos.Output.FromString(next(answers))
        return str(output.value)

    return answers, send


def test_workers_follow_and_replacements_too(track, registry):
    """Each worker swaps; a worker that replaces one that died serves the version that the others serve now."""
    server = track("-w", "2")
    registry.move("2")
    server.wait_for_version("2", times=2)
    victim = int(server.process.wait_for(r"worker 0 started, pid (\d+)")[1])
    registry.store.delete_registered_model_alias("churn", "champion")  # The registry cannot say it any more.
    os.kill(victim, signal.SIGKILL)
    server.process.wait_for("churn@champion is version 2")
    assert "is version 1" in server.process.output
    scrape = server.metrics()
    while scrape.total("mlflow_grpc_model_ready", version="2") < 2:
        scrape = server.metrics()
    assert server.answer() == (predicted(2), "2")


def test_a_model_that_could_not_be_loaded_is_served_once_the_alias_moves(track, registry, tmp_path):
    """A tracked model with on_error: skip is not lost until the next start."""
    registry.move(BROKEN_PICKLE)
    file = tmp_path / "models.yaml"
    file.write_text(
        f"models: [{{uri: 'models:/churn@champion', on_error: skip}}, {{uri: 'models:/{OWN}@champion', track: off}}]"
    )
    server = track("--config", str(file))
    with pytest.raises(grpc.RpcError, match="FAILED_PRECONDITION"):
        server.answer(mlflow_model="churn")
    registry.move("2")
    server.wait_for_version("2")
    assert server.answer(mlflow_model="churn") == (predicted(2), "2")
    assert server.answer(mlflow_model="own") == (predicted(1), "1")
