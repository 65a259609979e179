"""A host without a port, called with bytes: every RPC answers as over the port."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import mlflow
import pandas as pd
import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from mlflow.models import infer_signature
from mlflow.pyfunc.model import PythonModel

from mlflow_grpc import protos
from mlflow_grpc.config import Configuration, ModelConfig
from mlflow_grpc.host import Host
from mlflow_grpc.services.in_process import CallError, InProcessCaller
from mlflow_grpc.settings import Settings
from tests.support import tensors
from tests.support.servers import ROOT, Caller, serving_models
from tests.support.typed import SERVICE, TypedCaller

FLIGHT = "arrow.flight.protocol.FlightService"

REQUEST_ID = ("x-request-id", "from-the-test")


class Twice(PythonModel):
    """Doubles a number, waits for a negative one, and streams."""

    def predict(self, context, model_input, params=None):
        value = float(model_input["x"].iloc[0])
        if value < 0:
            time.sleep(-value)
        if value == 13:
            raise ValueError("a secret")
        return pd.DataFrame({"y": model_input["x"] * 2})

    def predict_stream(self, context, model_input, params=None):
        yield {"y": model_input["x"]}
        if model_input["x"] == 13:
            raise ValueError("a secret")
        yield {"y": model_input["x"] * 2}


class Running:
    """A host, in an event loop of this thread."""

    def __init__(self, models: tuple[ModelConfig, ...], **settings: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.host = Host(Settings(**{"model_uri": "(host)", **settings}), Configuration(models=models))
        self.caller = InProcessCaller(self.host.handlers)

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def open(self) -> None:
        self.run(self.host.load())
        self.host.open()

    def close(self) -> None:
        self.host.end_calls()
        self.run(asyncio.sleep(0))
        self.run(self.host.close())
        self.loop.close()

    def outcome(
        self, method: MethodDescriptor, messages: list[bytes], metadata: Any = (), timeout_s: float | None = None
    ) -> Any:
        """Returns status, message, trailers and answers of a call without a port."""

        async def requests() -> AsyncIterator[bytes]:
            for message in messages:
                yield message

        async def call() -> Any:
            path = f"/{method.containing_service.full_name}/{method.name}"
            options: dict[str, Any] = {"metadata": (REQUEST_ID, *metadata), "timeout_s": timeout_s}
            answers: list[bytes] = []
            try:
                if not method.server_streaming:
                    response = await self.caller.unary(path, messages[0], **options)
                    return "OK", "", trailers_of(response.trailers), [response.message]
                stream = self.caller.stream(path, requests() if method.client_streaming else messages[0], **options)
                async for answer in stream:
                    answers.append(answer)
                    if method.name == "Watch":
                        stream.cancel()
                        return "OK", "", [], answers
                return "OK", "", trailers_of(stream.trailers), answers
            except CallError as error:
                return error.code.name, error.details, trailers_of(error.trailers), answers

        return self.run(call())


def over_the_port(
    call: Caller, method: MethodDescriptor, messages: list[bytes], metadata: Any = (), timeout_s: float | None = None
) -> Any:
    """Returns what `Running.outcome` returns, of a call over the port."""
    # On the wire, a call with one message is a stream of one.
    rpc: Any = call.channel.stream_stream(f"/{method.containing_service.full_name}/{method.name}")
    responses = rpc(iter(messages), metadata=(REQUEST_ID, *metadata), timeout=timeout_s or 30)
    answers = []
    try:
        for answer in responses:
            answers.append(answer)
            if method.name == "Watch":
                responses.cancel()
                return "OK", "", [], answers
    except grpc.RpcError as error:
        assert error is responses
    return responses.code().name, responses.details(), trailers_of(responses.trailing_metadata()), answers


def trailers_of(trailers: Any) -> list[tuple[str, Any]]:
    return sorted((key, value) for key, value in trailers)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[ModelConfig, ...]:
    folder = tmp_path_factory.mktemp("models")
    frame = pd.DataFrame({"x": [1.0, 2.0]})
    mlflow.pyfunc.save_model(
        folder / "twice",
        python_model=Twice(),
        signature=infer_signature(frame, pd.DataFrame({"y": [2.0, 4.0]})),
        pip_requirements=["mlflow"],
    )
    package = ModelConfig(class_path="tests.support.newer_models.Echo", name="echo", endpoint=True)
    return (ModelConfig(uri=str(folder / "twice"), name="twice", default=True, endpoint=True), package)


@pytest.fixture(scope="module")
def both(models) -> Iterator[tuple[Caller, Running]]:
    """The same models behind a port and in a host without one."""
    running = Running(models)
    running.open()
    with serving_models([(model, None) for model in models]) as server, Caller(server.address) as call:
        yield call, running
    running.close()


def payload(**fields: Any) -> bytes:
    data: bytes = protos.Input(value=json.dumps({"dataframe_records": [fields]})).SerializeToString()
    return data


def calls(typed: TypedCaller) -> Iterator[tuple[MethodDescriptor, list[bytes]]]:
    """Yields every method of every service with requests that are answered, refused, or not protobuf."""
    text = [payload(x=1.5), payload(x=13), payload(x="no number"), protos.Input(value="{").SerializeToString(), b"\xff"]
    services: list[Any] = [protos.service(name) for name in ("MLflow", "MLflowStream", FLIGHT, "mlflow_grpc.v1.Models")]
    services.append(protos.service(tensors.NAME))
    services += [health_pb2.DESCRIPTOR.services_by_name["Health"], typed.service]
    services.append(reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"])
    infers = [tensors.request("twice", ("x", "FP64", [x])).SerializeToString() for x in (1.5, 13.0)]
    infers += [tensors.request(name, ("y", "FP64", [1.0])).SerializeToString() for name in ("twice", "nobody")]
    infers.append(b"\xff")
    messages = {
        "MLflow": text,
        "MLflowStream": text,
        FLIGHT: [b"", b"\xff"],
        "mlflow_grpc.v1.Models": [b"", b"\x0a\x05twice", b"\x0a\x06nobody", b"\xff"],
        "grpc.health.v1.Health": [b"", b"\x0a\x05twice", b"\x0a\x06nobody", b"\xff"],
        "grpc.reflection.v1alpha.ServerReflection": [b"\x3a\x00", b"\x22\x06nobody", b"\xff"],
    }
    for service in services:
        for method in service.methods:
            if service.full_name == SERVICE:
                numbers: list[dict[str, Any]] = [{"x": 1.5}, {"x": 13}, {}]
                if method.name.endswith("_batch"):
                    numbers = [{"x": [1.5, 2.5]}, {"x": [13]}, {}]
                if "x" not in method.input_type.fields_by_name:
                    numbers = [{}]
                requests = [typed.input(method.name, fields).SerializeToString() for fields in numbers]
                requests.append(b"\xff")
            elif service.full_name == tensors.NAME:
                requests = infers if "Infer" in method.name else [b"", b"\x0a\x05twice", b"\x0a\x06nobody", b"\xff"]
            else:
                requests = messages[service.full_name]
            yield from ((method, [request]) for request in requests)
            if method.client_streaming:
                yield method, requests
                yield method, []


def test_every_rpc_answers_as_over_the_port(both):
    """Statuses, messages, trailers and answers are the same, for good requests and for bad ones."""
    call, running = both
    services, statuses = set(), set()
    for method, messages in calls(TypedCaller(call.channel)):
        expected = over_the_port(call, method, messages)
        assert running.outcome(method, messages) == expected, (method.full_name, messages)
        services.add(method.containing_service.full_name)
        statuses.add(expected[0])
    assert services >= set(running.host.services)
    assert {"OK", "INVALID_ARGUMENT", "INTERNAL", "NOT_FOUND"} <= statuses


@pytest.mark.parametrize(
    ("metadata", "timeout_s", "x"),
    [([("mlflow-model", "nobody")], None, 1.0), ([("mlflow-content-type", "text/csv")], None, 1.0), ([], 0.2, -1.0)],
)
def test_metadata_and_deadlines_are_those_of_the_caller(both, metadata, timeout_s, x):
    """Metadata selects the model, and a deadline ends the call."""
    call, running = both
    method = protos.service("MLflow").methods_by_name["predict"]
    expected = over_the_port(call, method, [payload(x=x)], metadata, timeout_s)
    outcome = running.outcome(method, [payload(x=x)], metadata, timeout_s)
    assert outcome[0] == expected[0]
    if outcome[0] == "DEADLINE_EXCEEDED":
        return  # gRPC's client writes the message, and there are no trailers.
    assert outcome == expected


def test_unknown_methods_are_unimplemented(both):
    """As over the port."""
    call, running = both
    rpc: Any = call.channel.unary_unary("/MLflow/nothing")
    with pytest.raises(grpc.RpcError) as expected:
        rpc(b"", timeout=30)
    with pytest.raises(CallError) as error:
        running.run(running.caller.unary("/MLflow/nothing", b""))
    assert (error.value.code, error.value.details) == (expected.value.code(), expected.value.details())


def test_a_host_is_loading_then_open_then_draining(models):
    """Calls are UNAVAILABLE before the models are loaded and once the host drains, and health says so."""
    running = Running(models[:1])
    predict = protos.service("MLflow").methods_by_name["predict"]
    try:
        before = running.outcome(predict, [payload(x=1.0)])
        running.open()
        while_open = running.outcome(predict, [payload(x=1.0)])
        assert running.host.is_serving

        async def drain_beside_a_call() -> tuple[Any, int]:
            answering = asyncio.ensure_future(running.caller.unary("/MLflow/predict", payload(x=-0.2)))
            while not running.host.catalog.entries[0].engine.admission.admitted_requests:
                await asyncio.sleep(0)
            lost = await running.host.drain(10)
            return await answering, lost

        answer, lost = running.run(drain_beside_a_call())
        after = running.outcome(predict, [payload(x=1.0)])
    finally:
        running.close()
    assert (before[0], while_open[0], after[0]) == ("UNAVAILABLE", "OK", "UNAVAILABLE")
    assert (protos.Output.FromString(answer.message).value, lost) == ('{"predictions": [{"y": -0.4}]}', 0)
    assert not running.host.is_serving


def test_a_reader_that_leaves_ends_the_call(both):
    """The handler of a stream does not go on for a caller that reads no further."""
    _, running = both

    async def leave() -> Any:
        stream = running.caller.stream("/MLflowStream/predict_stream", payload(x=1.0))
        await anext(stream)
        stream.cancel()
        await running.host.catalog.entries[0].engine.admission.wait_until_empty()
        return running.host.catalog.entries[0].engine.admission.open_calls

    assert not running.run(leave())


def test_the_example_in_the_docs_runs(iris_path, capsys):
    """The Python block of docs/scaling.md prints the line that the page shows."""
    page = (ROOT / "docs" / "scaling.md").read_text()
    (code,) = [
        block for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "Host" in block
    ]
    exec(compile(code.replace("models/iris", str(iris_path)), "scaling.md", "exec"), {})  # noqa: S102
    assert f"It prints `{capsys.readouterr().out.strip()}`" in page
