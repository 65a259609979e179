"""Answers of replicas behind HAProxy are those of the project's own server."""

import json
from typing import Any

import grpc
import pytest
from mlflow_grpc_client import Client, ResourceExhausted
from mlflow_grpc_client._options import RETRY_PAUSES_S

from mlflow_grpc import protos
from tests.ray.calls import ROWS, full, held, outcome, text
from tests.support import tensors
from tests.support.typed import TypedCaller, plain

PREDICT, PREDICT_MANY = "/MLflow/predict", "/MLflowStream/predict_many"

INFERENCE = f"/{tensors.NAME}"

FLOWERS = tensors.request(
    "iris", *((name, "FP64", [row[index] for row in ROWS["data"]]) for index, name in enumerate(ROWS["columns"]))
).SerializeToString()
"""A request of the Open Inference Protocol with both rows."""

ATTEMPTS = 1 + len(RETRY_PAUSES_S)

CASES: dict[str, tuple[str, str, list[bytes], dict[str, Any]]] = {
    "rows": ("unary", PREDICT, [text({"dataframe_split": ROWS})], {}),
    "named model": ("unary", PREDICT, [text({"inputs": ["a", "b"]})], {"mlflow_model": "steps"}),
    "no JSON": ("unary", PREDICT, [text("{")], {}),
    "missing columns": ("unary", PREDICT, [text({"inputs": {"sepal_length_cm": [1.0]}})], {}),
    "raising model": ("unary", PREDICT, [text({"inputs": ["raise", "boom"]})], {"mlflow_model": "steps"}),
    "no such model": ("unary", PREDICT, [text({"inputs": ["a"]})], {"mlflow_model": "other"}),
    "no such method": ("unary", "/MLflow/other", [b""], {}),
    "not a message": ("unary", PREDICT, [b"\xff"], {}),
    "stream": (
        "stream",
        PREDICT_MANY,
        [text({"dataframe_split": ROWS}), text("{"), text({"dataframe_split": ROWS})],
        {},
    ),
    "stream of answers": ("answers", "/MLflowStream/predict_stream", [text({"dataframe_split": ROWS})], {}),
    "health": ("unary", "/grpc.health.v1.Health/Check", [b"\n\x06MLflow"], {}),
    "health of no service": ("unary", "/grpc.health.v1.Health/Check", [b"\n\x05other"], {}),
    "typed models": ("unary", "/model_grpc_service.ModelgRPCService/get_models", [b""], {}),
    "no typed RPC": ("unary", "/model_grpc_service.ModelgRPCService/other_predict", [b""], {}),
    "tensors": ("unary", f"{INFERENCE}/ModelInfer", [FLOWERS], {}),
    "tensors of no model": ("unary", f"{INFERENCE}/ModelInfer", [tensors.request("other").SerializeToString()], {}),
    "stream of tensors": ("stream", f"{INFERENCE}/ModelStreamInfer", [FLOWERS, FLOWERS], {}),
    "model of tensors": ("unary", f"{INFERENCE}/ModelReady", [b"\n\x04iris"], {}),
    "memory of Triton": ("unary", f"{INFERENCE}/SystemSharedMemoryStatus", [b""], {}),
    "list of flights": ("answers", "/arrow.flight.protocol.FlightService/ListFlights", [b""], {}),
    "reflection": ("stream", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", [b":\x01*"], {}),
}
"""Form, path, messages and metadata of calls. The reflection request asks for the list of services."""


@pytest.mark.parametrize("case", CASES)
def test_outcomes_are_those_of_the_server(case, address, reference):
    """Messages, status, error details and trailers are those of the project's own server."""
    form, path, messages, metadata = CASES[case]
    metadata = {**metadata, "x_request_id": "of-the-test"}
    expected = outcome(reference, form, path, *messages, **metadata)
    assert outcome(address, form, path, *messages, **metadata) == expected


def test_typed_calls(address, reference):
    """The typed RPCs are those that reflection describes, and their answers are those of the server."""
    record = dict(zip(ROWS["columns"], ROWS["data"][0], strict=True))
    answers = []
    for server in (reference, address):
        with grpc.insecure_channel(server) as channel:
            caller = TypedCaller(channel)
            names = sorted(method.name for method in caller.service.methods)
            answers.append((names, plain(caller("iris_predict", record)), caller.outcome("iris_predict", {})))
    assert answers[0] == answers[1]


def test_the_deadline_reaches_the_model(address, cluster, tmp_path):
    """A call that waits is given up at its deadline by the server, which logs it as such."""
    with held(address, tmp_path):
        _, code, _, _ = outcome(
            address,
            "unary",
            PREDICT,
            text({"inputs": ["too", "late"]}),
            timeout_s=0.5,
            mlflow_model="steps",
            x_request_id="too-late",
        )
    assert code == "DEADLINE_EXCEEDED"
    assert cluster.line("too-late")["status"] == "DEADLINE_EXCEEDED"


def test_an_overloaded_replica_is_called_again(address, cluster, tmp_path):
    """A refused call carries the pause before a retry, and the client makes all of its attempts."""
    before = cluster.refusals()
    with full(address, tmp_path) as trailers, Client(address) as client:
        assert "grpc-retry-pushback-ms" in trailers
        with pytest.raises(ResourceExhausted):
            client.predict({"inputs": ["e", "f"]}, model="steps")
        cluster.wait_until(lambda: cluster.refusals() >= before + 1 + ATTEMPTS)


def test_the_models_are_described(address, reference):
    """The client lists the models as on the server."""
    with Client(address) as client, Client(reference) as direct:
        assert [repr(model) for model in client.models()] == [repr(model) for model in direct.models()]


def test_messages_are_of_the_protocol(address):
    """The answer parses with the descriptors of the project."""
    (answer,), *_ = outcome(address, "unary", PREDICT, text({"dataframe_split": ROWS}))
    output: Any = protos.Output.FromString(answer)
    assert json.loads(output.value) == {"predictions": ["setosa", "virginica"]}
