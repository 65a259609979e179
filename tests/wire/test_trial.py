"""Typed RPCs are tried on a model's example at load, over real gRPC; those that fail are not offered."""

import json
import threading
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow_grpc_client import Client, PredictError
from mlflow_grpc_client._cli.describe import Connection, describe

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.engine import loading, trial
from mlflow_grpc.settings import Settings
from tests.support import zoo
from tests.support.servers import Caller, serving_models

INPUT = Schema([ColSpec(DataType.long, "n")])
TEXT, NUMBER = Schema([ColSpec(DataType.string)]), Schema([ColSpec(DataType.long, "n")])
EXAMPLE = pd.DataFrame({"n": [1, 2]})
ALL = ["predict", "predict_batch", "predict_many"]

runs: list[Any] = []
"""Inputs of the models."""
held = threading.Event()
"""Holds a model until it is set."""


class Numbers(PythonModel):
    """Returns its input."""

    def predict(self, context, model_input, params=None):
        runs.append((model_input["n"].tolist(), params))
        return model_input


class More(PythonModel):
    """Returns more columns than its schema has."""

    def predict(self, context, model_input, params=None):
        runs.append(model_input["n"].tolist())
        return [{"n": n, "more": 1} for n in model_input["n"].tolist()]


class Word(PythonModel):
    """Returns one word for any number of rows, and chunks that are not words."""

    def predict(self, context, model_input, params=None):
        return "word"

    def predict_stream(self, context, model_input, params=None):
        runs.append("begun")
        try:
            for index in range(1000):
                runs.append(index)
                yield {"delta": "word", "place": index}
        finally:
            runs.append("closed")


class Picky(PythonModel):
    """Refuses its own example."""

    def predict(self, context, model_input, params=None):
        if model_input["n"].iloc[0] == 1:
            raise ValueError("not 1")
        return [{"n": n, "more": 1} for n in model_input["n"].tolist()]


class Slow(PythonModel):
    """Waits during its trial."""

    def predict(self, context, model_input, params=None):
        if threading.current_thread().name == "trial":
            held.wait(30)
        return [{"more": 1}]


MODELS = {
    "numbers": (Numbers, NUMBER), "more": (More, NUMBER), "word": (Word, TEXT), "picky": (Picky, NUMBER),
    "slow": (Slow, NUMBER),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tried")
    for name, (model, output) in MODELS.items():
        params: Any = ParamSchema([ParamSpec("flag", DataType.boolean, False)]) if name == "numbers" else None
        signature = ModelSignature(INPUT, output, params)
        example: Any = (EXAMPLE, {"flag": True}) if name == "numbers" else EXAMPLE
        mlflow.pyfunc.save_model(
            directory / name,
            python_model=model(),
            signature=signature,
            input_example=example,
            pip_requirements=["mlflow"],
        )
    return directory


@pytest.fixture(autouse=True)
def _from_the_beginning(folder):
    """Clears the inputs of MLflow's own trial, which runs when a model is saved."""
    runs.clear()
    held.clear()
    yield
    held.set()


def offered(folder, name, **more):
    """Returns the typed RPCs of a model that a server has loaded."""
    with (
        serving_models([(ModelConfig(uri=str(folder / name), name=name, endpoint=True, **more), None)]) as running,
        Client(running.address) as client,
        Caller(running.address) as call,
    ):
        (model,) = client.models()
        rpcs = [path.rpartition(f"/{name}_")[2] for path in model.rpcs if f"/{name}_" in path]
        assert json.loads(call('{"dataframe_records": [{"n": 3}]}'))
        contract = client.model(name).contract() if rpcs else None
        assert ("in Python:" in describe(model, Connection(running.address), contract)) == ("predict" in rpcs)
        if not rpcs:
            with pytest.raises(PredictError, match="UNIMPLEMENTED"):
                client.model(name).predict(n=3)
        return rpcs


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if "typed RPC" in record.getMessage()]


def test_working_rpcs_are_offered(folder, caplog):
    """The model runs once for each RPC, on the first row of the example with its params; a batch has this row twice."""
    loaded = loading.load(ModelConfig(uri=str(folder / "numbers"), endpoint=True), Settings(model_uri="m"))
    assert (loaded.refused_rpcs, runs) == (frozenset(), [([1], {"flag": True}), ([1, 1], {"flag": True})])
    assert offered(folder, "numbers") == ALL
    assert warnings_of(caplog) == []


def test_rpcs_that_fail_where_json_works_are_not_offered(folder, caplog):
    """A warning has the reason; the model is served, and its JSON calls are answered."""
    assert offered(folder, "more") == []
    record_warning, batch = warnings_of(caplog)
    assert record_warning.startswith("more: not offered as typed RPCs: predict, predict_many, since ")
    assert "fields that the schema does not have" in record_warning
    assert batch.startswith("more: not offered as typed RPCs: predict_batch, since ")


def test_rows_and_streams_are_judged_separately(folder, caplog):
    """Only the failing RPCs are missing; the iterator of chunks is closed before its end."""
    assert offered(folder, "word") == ["predict", "predict_many"]
    assert runs == ["begun", 0, "closed", "begun", 0, 1, 2, "closed"]
    batch, stream = warnings_of(caplog)
    assert "not offered as typed RPCs: predict_batch, since" in batch
    assert "not offered as typed RPCs: predict_stream, since" in stream


def test_an_example_that_fails_as_json_refuses_nothing(folder, caplog):
    """An example that also fails as JSON says nothing about the RPCs."""
    assert offered(folder, "picky") == ALL
    assert warnings_of(caplog) == []


def test_slow_trials_do_not_delay_the_start(folder, caplog, monkeypatch):
    """A slow trial does not delay the start, and its later outcome has no effect."""
    monkeypatch.setattr(trial, "LIMIT_S", 0.05)
    assert offered(folder, "slow") == ALL
    (warning,) = warnings_of(caplog)
    assert "its example took more than 0.05 s" in warning
    held.set()
    for thread in threading.enumerate():
        if thread.name == "trial":
            thread.join(30)
    assert len(warnings_of(caplog)) == 1


def test_the_trial_can_be_turned_off(folder):
    """The trial can be turned off for all models or for one, and on again for one. A model without an endpoint is not
    tried. A model that is not tried is not called before the first call."""
    runs.clear()
    config = ModelConfig(uri=str(folder / "more"), endpoint=True)
    off = Settings(model_uri="m", try_example=False)
    assert not loading.load(config, off).refused_rpcs
    assert not loading.load(config.model_copy(update={"try_example": False}), Settings(model_uri="m")).refused_rpcs
    assert not loading.load(config.model_copy(update={"endpoint": False}), Settings(model_uri="m")).refused_rpcs
    assert runs == []
    assert loading.load(config.model_copy(update={"try_example": True}), off).refused_rpcs


# Models without types, with one answer for all rows, or with a generated example that has no values or is refused by
# MLflow.
UNTRIED = {
    "no_signature", "params_only", "without_params", "nested_bytes", "within", "unnamed_any", "unnamed_list", "hint_any",
}  # fmt: skip
TYPED = [*zoo.NAMES, *zoo._more_signatures(), *zoo._MORE_HINTED]


@pytest.mark.parametrize("name", [name for name in TYPED if name not in UNTRIED])
def test_examples_of_every_type_are_tried(tmp_path, name, caplog):
    """An example of each type is converted to messages and answered."""
    caplog.set_level("INFO")
    zoo.save(f"rows_{name}", tmp_path / "m")
    config = ModelConfig(uri=str(tmp_path / "m"), name=name, endpoint=True)
    loaded = loading.load(config, Settings(model_uri="m", try_example=False))
    codec = loaded.record_codec
    assert codec is not None
    assert trial.refused(loaded, codec, loaded.model.info.example) == frozenset()
    assert warnings_of(caplog) == []
