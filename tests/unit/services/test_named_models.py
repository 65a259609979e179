"""Admission of calls whose requests name the model."""

from types import SimpleNamespace
from typing import Any

import pytest

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.engine.admission import MIN_ARRIVING_LIMIT, Stage
from mlflow_grpc.engine.catalog import Catalog
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import NotReady, Overloaded, UnknownModel
from mlflow_grpc.services.named_models import NamedModels
from mlflow_grpc.settings import Settings
from tests.support.models import FunctionModel, PlainCodec

SETTINGS = Settings(model_uri="(unit)", queue_calls=2)


def open_catalog(*names: str) -> Catalog:
    configs = tuple(ModelConfig(uri=f"models:/{name}/1", name=name, endpoint=True) for name in names)
    catalog = Catalog(configs, lambda: Engine.from_settings(SETTINGS))
    for entry in catalog.entries:
        catalog.register(entry, ServableModel(FunctionModel(str), PlainCodec()))
    catalog.set_stage(Stage.OPEN)
    return catalog


def call() -> Any:
    return SimpleNamespace(
        model="", version_trailers=(), permit=None, metadata=lambda key: None, time_remaining=lambda: None
    )


def open_calls(catalog: Catalog) -> list[int]:
    return [entry.engine.admission.open_calls for entry in catalog.entries]


def test_one_model_admits_before_the_request_is_read():
    """The call counts for the only model from its arrival to its end."""
    catalog = open_catalog("only")
    models, arrived = NamedModels(catalog, max_unread=2), call()
    with models.admit(arrived) as arrival:
        assert (open_calls(catalog), models.unread, arrived.model) == ([1], 0, "only")
        assert arrival.model("only", "") is catalog.entries[0]
        assert open_calls(catalog) == [1]
    assert open_calls(catalog) == [0]


def test_several_models_admit_after_the_request_is_read():
    """The call counts as unread until its model is known, and then for this model."""
    catalog = open_catalog("a", "b")
    models, arrived = NamedModels(catalog, max_unread=2), call()
    with models.admit(arrived) as arrival:
        assert (open_calls(catalog), models.unread) == ([0, 0], 1)
        arrival.model("b", "")
        assert (open_calls(catalog), models.unread, arrived.model) == ([0, 1], 0, "b")
    assert (open_calls(catalog), models.unread) == ([0, 0], 0)


def test_a_call_that_fails_leaves_nothing_behind():
    """A call of an unknown model, and one that the model refuses, no longer count."""
    catalog = open_catalog("a", "b")
    models = NamedModels(catalog, max_unread=2)
    with pytest.raises(UnknownModel), models.admit(call()) as arrival:
        arrival.model("c", "")
    catalog.entries[0].engine.admission.stage = Stage.LOADING
    with pytest.raises(NotReady), models.admit(call()) as arrival:
        arrival.model("a", "")
    assert (open_calls(catalog), models.unread) == ([0, 0], 0)


def test_unread_calls_and_streams_are_limited():
    """With several models, a call or stream over the limit is refused, and one that has ended makes room."""
    models = NamedModels(open_catalog("a", "b"), max_unread=1)
    arrivals = [models.admit(call()) for _ in range(MIN_ARRIVING_LIMIT)]
    with pytest.raises(Overloaded):
        models.admit(call())
    arrivals.pop().__exit__(None, None, None)
    models.admit(call())
    streams = [models.admit_stream(call()) for _ in range(MIN_ARRIVING_LIMIT)]
    for stream in streams:
        stream.__enter__()
    with pytest.raises(Overloaded), models.admit_stream(call()):
        pass
    streams.pop().__exit__(None, None, None)
    with models.admit_stream(call()):
        pass


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_a_server_that_drains_reads_nothing(names):
    """Calls and streams are refused before they are read once the server drains."""
    catalog = open_catalog(*names)
    models = NamedModels(catalog, max_unread=2)
    catalog.set_stage(Stage.DRAINING)
    with pytest.raises(NotReady):
        models.admit(call())
    with pytest.raises(NotReady), models.admit_stream(call()):
        pass
