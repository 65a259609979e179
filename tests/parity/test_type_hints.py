"""Models whose input is a list of pydantic objects: the class counts, not the signature that MLflow derives from it."""

import base64
import datetime
import functools
import json
import sys
from collections.abc import Iterator
from typing import Any

import cloudpickle
import grpc
import mlflow
import pydantic
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from mlflow.pyfunc.model import PythonModel
from mlflow_grpc_client import Client

from mlflow_grpc.config import ModelConfig
from tests.parity.conftest import oracle_of
from tests.parity.test_typed import in_any_order
from tests.support import zoo
from tests.support.servers import Caller, serving_models
from tests.support.typed import TypedCaller, plain

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Component(pydantic.BaseModel):
    weight: float = pydantic.Field(default=1.5, gt=0)


class Order(pydantic.BaseModel):
    role: str
    needed: list[int]
    tags: list[str] = ["a"]
    empty: list[int] = []
    from_factory: list[int] = pydantic.Field(default_factory=lambda: [7])
    nested: list[list[int]] = [[1]]
    counts: dict[str, int] = {"k": 1}
    number: int = 3
    maybe: int | None = 5
    none: str | None = None
    component: Component = Component()
    parts: list[Component] = []
    aliased: int = pydantic.Field(0, alias="Other Name")


class Stamped(pydantic.BaseModel):
    at: datetime.datetime
    data: bytes = b""
    moments: list[datetime.datetime] = []
    by_name: dict[str, bytes] = {}


class Closed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    role: str


class Orders(PythonModel):
    def predict(self, model_input: list[Order], params=None):
        return [zoo.tell(item) for item in model_input]


class Stamps(PythonModel):
    def predict(self, model_input: list[Stamped], params=None):
        return [zoo.tell(item) for item in model_input]


class Closeds(PythonModel):
    def predict(self, model_input: list[Closed], params=None):
        return [zoo.tell(item) for item in model_input]


class Moments(PythonModel):
    def predict(self, model_input: list[dict[str, list[datetime.datetime]]], params=None):
        return [zoo.tell(item) for item in model_input]


MODELS: dict[str, PythonModel] = {"orders": Orders(), "stamps": Stamps(), "closed": Closeds(), "moments": Moments()}


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[Any, TypedCaller, Client]]:
    """MLflow's answers by model, typed RPCs, and the Python client."""
    folder = tmp_path_factory.mktemp("hints")
    for name, model in MODELS.items():
        mlflow.pyfunc.save_model(folder / name, python_model=model, pip_requirements=["mlflow"])
    configs = [ModelConfig(uri=str(folder / name), name=name, endpoint=True) for name in MODELS]
    with (
        serving_models([(config, None) for config in configs]) as running,
        Caller(running.address) as call,
        Client(running.address) as client,
    ):
        yield functools.cache(lambda name: oracle_of(folder / name)), TypedCaller(call.channel), client


def echoed_rows(oracle: Any, inputs: list[Any]) -> list[Any]:
    status, answer = oracle(json.dumps({"inputs": inputs}), "application/json")
    assert status == 200, answer
    return [in_any_order(row) for row in json.loads(answer)["predictions"]]


@pytest.mark.parametrize(
    "record",
    [
        {"role": "x", "needed": []},
        {"role": "", "needed": [1], "tags": [], "empty": [2], "from_factory": [], "nested": [], "counts": {}},
        {"role": "x", "needed": [1], "tags": ["b"], "nested": [[], [2]], "counts": {"": 0}, "number": 0, "maybe": 0},
        {"role": "x", "needed": [], "component": {}, "parts": [{}, {"weight": 2.0}], "none": "", "Other Name": 4},
    ],
)
def test_defaults(served, record):
    """Absent fields have the class's default, and empty or zero values are kept: typed, by the client, and as JSON."""
    oracle, _, client = served
    expected = echoed_rows(oracle("orders"), [record])
    model = client.model("orders")
    assert [in_any_order(model.predict(record))] == expected
    assert [in_any_order(row) for row in model.predict([record, record])] == expected * 2


def test_times_and_bytes_within_a_class(served):
    """MLflow accepts no JSON for times and bytes within a class, but the model gets them from messages."""
    oracle, typed, client = served
    moment = datetime.datetime(2020, 2, 29, 12, 0, 0, 1)
    record: dict[str, Any] = {"at": moment, "data": b"\xff\x00", "moments": [moment], "by_name": {"k": b"x"}}
    payload = {"inputs": [{"at": moment.isoformat()}]}
    assert oracle("stamps")(json.dumps(payload), "application/json")[0] == 400
    expected = in_any_order(zoo.tell(Stamped(**record)))
    assert in_any_order(client.model("stamps").predict(record)) == expected
    assert [in_any_order(row) for row in client.model("stamps").predict([record] * 2)] == [expected] * 2
    fields = {"at": f"{moment.isoformat()}Z", "data": base64.b64encode(b"\xff\x00").decode()}
    answer = plain(typed("stamps_predict", {"value": fields}))["prediction"]
    assert in_any_order(answer) == in_any_order(zoo.tell(Stamped(at=moment, data=b"\xff\x00")))


def test_times_outside_of_a_class(served):
    """Outside of a class MLflow reads times from texts, typed and as JSON."""
    oracle, _, client = served
    moment = datetime.datetime(2020, 2, 29, 12, 0, 0, 1)
    expected = echoed_rows(oracle("moments"), [{"k": [moment.isoformat()]}])
    assert [in_any_order(client.model("moments").predict({"k": [moment]}))] == expected


def refusal(typed: TypedCaller, method: str, message: Any) -> tuple[str, list[str]]:
    """Returns the message of an INVALID_ARGUMENT, and its fields."""
    with pytest.raises(grpc.RpcError) as caught:
        typed(method, message)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status: Any = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    return caught.value.details() or "", [violation.field for violation in bad.field_violations]


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"needed": [1]}, "value.role"),
        ({"role": "x", "component": {"weight": -1.0}}, "value.component.weight"),
        ({"role": "x", "parts": [{"weight": 1.0}, {"weight": 0.0}]}, "value.parts[1].weight"),
    ],
)
def test_refusals_by_a_class_are_named(served, record, field):
    """The error has the path in the record, and the row of a batch, without terms of the JSON that MLflow got."""
    _, typed, _ = served
    good = {"role": "x"}
    for method, message, prefix in (
        ("orders_predict", {"value": record}, ""),
        ("orders_predict_batch", {"value": [good, record]}, "[1]."),
    ):
        details, fields = refusal(typed, method, message)
        assert fields == [f"{prefix}{field}"]
        assert "inputs" not in details
        assert details.startswith("The record ")


def test_unknown_fields_of_a_class(served):
    """A class that forbids unknown fields refuses them, and others ignore them, as in JSON."""
    oracle, typed, _ = served
    assert oracle("closed")(json.dumps({"inputs": [{"role": "x", "more": 1}]}), "application/json")[0] == 400
    echoed_rows(oracle("orders"), [{"role": "x", "needed": [], "more": 1}])
    closed, open_one = typed.input("closed_predict", {}), typed.input("orders_predict", {})
    for message in (closed, open_one):
        message.value.role = "x"
        message.value.MergeFromString(b"\xf8\x06\x01")  # Field 111.
    assert refusal(typed, "closed_predict", closed)[1] == ["value.111"]
    assert typed.outcome("orders_predict", open_one)[0] == "OK"
