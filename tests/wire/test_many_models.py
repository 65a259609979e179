"""Several models in one server: which one a call is for, and that they do not affect each other."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.engine.servable import ServableModel
from tests.support.models import FunctionModel, GatedModel, PlainCodec
from tests.support.servers import Caller, InProcess, serving_models

HealthStub: Any = health_pb2_grpc.HealthStub


@contextmanager
def serving_all(models: dict[str, Any], **settings: Any) -> Iterator[tuple[InProcess, Caller]]:
    """Serves models under names such as `iris/1`; None stands for a model that could not be loaded."""
    placed: list[tuple[ModelConfig, ServableModel | str | None]] = []
    for label, model in models.items():
        name, _, version = label.partition("/")
        model_config = ModelConfig(uri="(in process)", name=name, version=version or None, endpoint=True)
        placed.append((model_config, "it is broken" if model is None else ServableModel(model, PlainCodec())))
    with serving_models(placed, **settings) as running, Caller(running.address) as call:
        yield running, call


def says(word: str) -> FunctionModel:
    return FunctionModel(lambda text: f"{word} {text}")


@pytest.fixture
def gated() -> Iterator[GatedModel]:
    model = GatedModel()
    yield model
    model.let_go()


def test_a_call_names_its_model():
    """A call names a model by name, or by name and version; without a version it gets the highest."""
    with serving_all({"a": says("a"), "b/1": says("b1"), "b/2": says("b2")}) as (_, call):
        assert call("x", mlflow_model="a") == "a x"
        assert call("x", mlflow_model="b") == "b2 x"
        assert call("x", mlflow_model="b/1") == "b1 x"
        unknown = "There is no such model here. There are: a, b/1, b/2."
        assert call.outcome("x", mlflow_model="c") == ("NOT_FOUND", unknown)
        unknown_version = "The model b has no version 7 here. It has: 1, 2."
        assert call.outcome("x", mlflow_model="b/7") == ("NOT_FOUND", unknown_version)
        without_versions = "The model a has no version 7 here. It has no versions: call it as a."
        assert call.outcome("x", mlflow_model="a/7") == ("NOT_FOUND", without_versions)
        assert call.outcome("x") == (
            "INVALID_ARGUMENT",
            "This server has several models; name one in the metadata or header mlflow-model: name or name/version. "
            "There are: a, b/1, b/2.",
        )


def test_errors_name_the_model_that_was_called():
    """ErrorInfo has the model, and MLflow's code for an unknown one; an unknown name is not repeated."""
    with serving_all({"a": says("a")}) as (_, call):
        with pytest.raises(grpc.RpcError) as caught:
            call("x", mlflow_model="../../etc/passwd")
        status: Any = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
        info = error_details_pb2.ErrorInfo()
        status.details[0].Unpack(info)
        assert info.reason == "RESOURCE_DOES_NOT_EXIST"
        assert "model" not in info.metadata
        assert "passwd" not in status.message


def test_hung_calls_to_a_model_do_not_affect_others(gated):
    """A model has its own threads and queue: it refuses calls while other models answer."""
    with (
        serving_all({"slow": gated, "b": says("b")}, threads=1, queue_calls=3) as (running, call),
        ThreadPoolExecutor() as pool,
    ):
        held = [pool.submit(call, f"hold {number}", mlflow_model="slow") for number in range(3)]
        running.wait_until(lambda: running.server.catalog.resolve("slow").engine.admission.admitted_requests == 3)
        assert call.outcome("late", mlflow_model="slow")[0] == "RESOURCE_EXHAUSTED"
        assert [call("x", mlflow_model="b") for _ in range(20)] == ["b x"] * 20
        gated.let_go()
        assert [future.result() for future in held] == [f"<hold {number}>" for number in range(3)]


def test_health_of_each_model():
    """Health has each model by name and by name and version. A failed model is NOT_SERVING, and its calls are refused."""
    with serving_all({"a": says("a"), "b/1": says("b1"), "broken": None}) as (running, call):
        stub = HealthStub(call.channel)

        def health(service: str) -> str:
            status = stub.Check(health_pb2.HealthCheckRequest(service=service)).status
            return health_pb2.HealthCheckResponse.ServingStatus.Name(status)

        assert {name: health(name) for name in ("", "MLflow", "a", "b", "b/1", "broken")} == {
            "": "SERVING", "MLflow": "SERVING", "a": "SERVING", "b": "SERVING", "b/1": "SERVING", "broken": "NOT_SERVING",
        }  # fmt: skip
        status, message = call.outcome("x", mlflow_model="broken")
        assert (status, message) == (
            "FAILED_PRECONDITION", "The model broken could not be loaded. The server's log says why.",
        )  # fmt: skip
        running.run(running.server.drain)
        assert {health(name) for name in ("", "MLflow", "a", "b", "b/1", "broken")} == {"NOT_SERVING"}


def test_the_drain_waits_for_all_models(gated):
    """Calls in flight at every model are answered, and new ones are refused."""
    with serving_all({"slow": gated, "b": says("b")}) as (running, call), ThreadPoolExecutor() as pool:
        held = pool.submit(call, "hold", mlflow_model="slow")
        gated.wait_until_entered()
        draining = pool.submit(running.run, running.server.drain)
        while call.outcome("x", mlflow_model="b")[0] != "UNAVAILABLE":
            pass
        assert not draining.done()
        gated.let_go()
        assert held.result() == "<hold>"
        assert draining.result() == 0
