"""Answers with another number of rows than the input, nulls and defaults: typed calls agree with JSON."""

import datetime
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import grpc
import mlflow
import numpy as np
import pandas as pd
import pydantic
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import AnyType, Array, Map, Object, Property
from mlflow_grpc_client import Client, PredictError
from mlflow_grpc_client._cli.describe import Connection, describe

from mlflow_grpc.config import ModelConfig
from tests.parity.conftest import oracle_of
from tests.support.servers import serving_models

cloudpickle.register_pickle_by_value(sys.modules[__name__])

HORIZON = Schema([ColSpec(DataType.long, "n")])
DAYS = Schema([ColSpec(DataType.long, "day"), ColSpec(DataType.double, "y")])
ANY = Schema([ColSpec(AnyType())])
ONE_COLUMN, TWO_COLUMNS = (
    Schema([ColSpec(DataType.double)]),
    Schema([ColSpec(DataType.double), ColSpec(DataType.double)]),
)
LISTS = Schema([ColSpec(Array(DataType.double), "v"), ColSpec(Map(DataType.double), "w")])
WITHIN = Schema([ColSpec(Object([Property("v", Array(DataType.double))]), "o")])


def frame(n: int) -> pd.DataFrame:
    return pd.DataFrame({"day": range(n), "y": [0.5] * n})


FORECASTS: dict[str, tuple[Schema | None, Callable[[int], Any]]] = {
    "frame": (DAYS, frame),
    "records": (DAYS, lambda n: frame(n).to_dict("records")),
    "lists": (DAYS, lambda n: {"day": list(range(n)), "y": [0.5] * n}),
    "arrays": (DAYS, lambda n: {"day": np.arange(n), "y": np.full(n, 0.5)}),
    "array": (ONE_COLUMN, lambda n: np.full(n, 0.5)),
}
"""Forecasts with columns."""
UNKNOWN: dict[str, tuple[Schema | None, Callable[[int], Any]]] = {
    "unknown frame": (None, frame),
    "unknown records": (None, lambda n: frame(n).to_dict("records")),
    "unknown array": (None, lambda n: np.full(n, 0.5)),
    "unknown series": (None, lambda n: pd.Series([0.5] * n, name="y")),
    "any": (ANY, frame),
}
BY_PLACE: dict[str, tuple[Schema, Callable[[int], Any]]] = {
    "one by place": (Schema([ColSpec(DataType.double, "score")]), lambda n: pd.DataFrame(np.full((n, 1), 0.5))),
    "two by place": (
        Schema([ColSpec(DataType.double, "a"), ColSpec(DataType.double, "b")]),
        lambda n: pd.DataFrame([[0.5, 1.5]] * n),
    ),
    "without names": (TWO_COLUMNS, lambda n: pd.DataFrame([[0.5, 1.5]] * n)),
}
AS_JSON: dict[str, tuple[Schema | None, Callable[[int], Any]]] = {
    "moments": (None, lambda n: np.array(["2020-01-01"] * n, "M8[ns]")),
    "large": (None, lambda n: [2**60] * n),
    "bytes": (Schema([ColSpec(DataType.string)]), lambda n: [b"ab"] * n),
    "bytes in a frame": (Schema([ColSpec(DataType.string, "s")]), lambda n: pd.DataFrame({"s": [b"ab"] * n})),
    "labels": (None, lambda n: pd.DataFrame([[1, 2, 3]] * n, columns=[None, True, 1.5])),
    "no lists": (LISTS, lambda n: pd.DataFrame({"v": [None] * n, "w": [None] * n})),
    "no lists in dicts": (LISTS, lambda n: [{"v": None, "w": None}] * n),
    "empty lists": (LISTS, lambda n: pd.DataFrame({"v": [[]] * n, "w": [{}] * n})),
    "no list within": (WITHIN, lambda n: [{"o": {"v": None}}] * n),
    "a null in a list": (LISTS, lambda n: [{"v": [1.0, None], "w": {}}] * n),
    "a null in a map": (LISTS, lambda n: [{"v": [], "w": {"k": None}}] * n),
    "a null in a list within": (WITHIN, lambda n: [{"o": {"v": [None, 1.0]}}] * n),
}
"""Answers with the same values as in JSON, for one row and for several."""
UNWRITABLE: dict[str, tuple[Schema | None, Callable[[int], Any], str]] = {
    "too large": (None, lambda n: [{"a": [2**60 + 1]}] * n, "a[0] has a whole number beyond 2^53"),
}
MODELS = {**FORECASTS, **UNKNOWN, **BY_PLACE, **AS_JSON, **{name: case[:2] for name, case in UNWRITABLE.items()}}


class Gives(PythonModel):
    """Returns the result of a function of the first row's number, or of the number of rows."""

    def __init__(self, make: Callable[[int], Any], by_rows: bool) -> None:
        self.make, self.by_rows = make, by_rows

    def predict(self, context, model_input, params=None):
        return self.make(len(model_input) if self.by_rows else int(model_input["n"].iloc[0]))


class Component(pydantic.BaseModel):
    a: int = 1


class Order(pydantic.BaseModel):
    """Defaults without a JSON form, nulls in lists, and a union."""

    from_factory: int | None = pydantic.Field(default_factory=lambda: 5)
    null: int | None = None
    integers: list[int | None] = []
    moments: list[datetime.datetime | None] = []
    by: dict[str, int | None] = {}
    parts: list[Component | None] = []
    either: int | str = 1


class Hinted(PythonModel):
    def predict(self, model_input: list[Order], params=None) -> list[str]:
        return [repr(order) for order in model_input]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    directory: Path = tmp_path_factory.mktemp("rows")
    for name, (output, make) in MODELS.items():
        by_rows = name not in FORECASTS and name not in UNKNOWN
        mlflow.pyfunc.save_model(
            directory / name.replace(" ", "_"),
            python_model=Gives(make, by_rows),
            signature=ModelSignature(HORIZON, output),
            pip_requirements=["mlflow"],
        )
    mlflow.pyfunc.save_model(directory / "hinted", python_model=Hinted(), pip_requirements=["mlflow"])
    mlflow.pyfunc.save_model(
        directory / "tried",
        python_model=Gives(frame, by_rows=False),
        signature=ModelSignature(HORIZON, DAYS),
        input_example=pd.DataFrame({"n": [3]}),
        pip_requirements=["mlflow"],
    )
    return directory


@pytest.fixture(scope="module")
def client(folder) -> Iterator[Client]:
    configs = [ModelConfig(uri=str(path), name=path.name, endpoint=True) for path in sorted(folder.iterdir())]
    with serving_models([(config, None) for config in configs]) as running, Client(running.address) as opened_client:
        yield opened_client


@pytest.fixture(scope="module")
def as_json(folder) -> Callable[..., Any]:
    """Returns MLflow's predictions for a model and rows."""
    oracles: dict[str, Any] = {}

    def ask(name: str, *rows: Any, key: str = "dataframe_records") -> Any:
        if name not in oracles:
            oracles[name] = oracle_of(folder / name.replace(" ", "_"))
        ask_mlflow = oracles[name]
        status, body = ask_mlflow(json.dumps({key: list(rows)}), "application/json")
        assert status == 200, body
        return json.loads(body)["predictions"]

    return ask


def model(client: Client, name: str) -> Any:
    return client.model(name.replace(" ", "_"))


@pytest.mark.parametrize("name", FORECASTS)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_forecast_with_columns(client, as_json, name, count):
    """Rows in columns get all rows of the answer. One record gets its only row, or an error that explains it."""
    expected = as_json(name, {"n": count})
    if isinstance(expected, dict):
        expected = frame(count).to_dict("records")
    assert model(client, name).predict([{"n": count}]) == expected
    if count == 1:
        assert model(client, name).predict(n=1) == expected[0]
        return
    with pytest.raises(PredictError) as caught:
        model(client, name).predict(n=count)
    assert caught.value.code is grpc.StatusCode.INTERNAL
    assert f"predicted {count} rows for one record" in caught.value.message
    assert "predict_batch" in caught.value.message


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_forecast_of_unknown_type(client, as_json, name, count):
    """Several rows are one value, the list in JSON; a single row is itself."""
    expected = as_json(name, {"n": count})
    value = expected[0] if count == 1 else expected
    assert model(client, name).predict(n=count) == value
    assert model(client, name).predict([{"n": count}]) == [value]


def test_a_forecast_keeps_only_the_rpc_for_rows(client):
    """The example shows that a record has no answer. The RPC for rows remains, and the client's error names it."""
    (tried,) = [listed_model for listed_model in client.models() if listed_model.name == "tried"]
    rpcs = [path.rpartition("/tried_")[2] for path in tried.rpcs if "/tried_" in path]
    assert rpcs == ["predict_batch"]
    assert client.model("tried").predict([{"n": 2}]) == frame(2).to_dict("records")
    assert client.model("tried").predict(pd.DataFrame({"n": [2]})) == frame(2).to_dict("records")
    with pytest.raises(PredictError, match="give it in a list") as caught:
        client.model("tried").predict(n=2)
    assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED
    contract = client.model("tried").contract()
    assert "in Python:" not in describe(tried, Connection("localhost:1"), contract)


@pytest.mark.parametrize("name", BY_PLACE)
def test_frames_without_labels(client, as_json, name):
    """PyTorch's answers have pandas' default labels, so their columns are matched to the signature by position."""
    values = [list(row.values()) for row in as_json(name, {"n": 0}, {"n": 0})]
    assert [list(row.values()) for row in model(client, name).predict([{"n": 0}, {"n": 0}])] == values
    assert list(model(client, name).predict(n=0).values()) == values[0]


@pytest.mark.parametrize("name", AS_JSON)
def test_the_same_values_as_in_json(client, as_json, name):
    """Typed answers have JSON's values, for one row and for several."""
    assert [model(client, name).predict(n=0)] == as_json(name, {"n": 0})
    assert model(client, name).predict([{"n": 0}, {"n": 0}]) == as_json(name, {"n": 0}, {"n": 0})


@pytest.mark.parametrize("name", UNWRITABLE)
def test_answers_that_messages_cannot_hold(client, as_json, name):
    """JSON has the value; the typed error has its path, and the call that returns it."""
    assert as_json(name, {"n": 0})
    for request in ({"n": 0}, [{"n": 0}]):
        with pytest.raises(PredictError) as caught:
            model(client, name).predict(request)
        assert caught.value.code is grpc.StatusCode.INTERNAL
        assert UNWRITABLE[name][2] in caught.value.message
        assert "The plain predict of service MLflow gives" in caught.value.message


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"null": None},
        {"from_factory": 3},
        {"integers": [1, None]},
        {"by": {"a": None}},
        {"parts": [None, {"a": 2}]},
    ],
)
def test_nulls_within_lists_of_a_hint(client, as_json, order):
    """Lists and maps of Optional values have nulls in messages too."""
    expected = as_json("hinted", order, key="inputs")
    assert [client.model("hinted").predict(order)] == expected
    assert client.model("hinted").predict([order]) == expected


def test_times_and_nulls_in_a_list(client):
    """MLflow refuses times within classes as JSON. In messages they work, also beside nulls."""
    answer = client.model("hinted").predict({"moments": [datetime.datetime(2020, 1, 1), None]})
    assert "moments=[datetime.datetime(2020, 1, 1, 0, 0), None]" in answer


def test_none_for_a_field_with_a_default_is_refused(client, as_json):
    """JSON can send null to the model, but a message would send the default, so the client refuses None."""
    assert "from_factory=None" in as_json("hinted", {"from_factory": None}, key="inputs")[0]
    for request in ({"from_factory": None}, [{"from_factory": None}]):
        with pytest.raises(ValueError, match="from_factory: None would become the field's default"):
            client.model("hinted").predict(request)
    (info,) = [listed_model for listed_model in client.models() if listed_model.name == "hinted"]
    (only,) = info.input_schema["properties"].values()
    properties = only["properties"]
    assert properties["from_factory"]["x-has-default"] is True
    assert "x-has-default" not in properties["null"]


@pytest.mark.parametrize("value", [1.5, True, None, [1]])
def test_a_union_has_the_types_of_its_class(client, value):
    """A union has the types of its class, while MLflow's signature has any JSON value."""
    with pytest.raises(PredictError) as caught:
        client.predict({"inputs": [{"either": value}]}, model="hinted")
    (violation,) = caught.value.violations
    assert violation.field == "inputs[0].either"
    assert violation.description.endswith("; must be a whole number or a string")
    with pytest.raises(PredictError) as caught:
        client.model("hinted").predict({"either": value})
    assert [violation.field for violation in caught.value.violations] == ["value.either"]
