"""The regions of models in the memory of the metrics."""

from typing import Any

import pytest

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.errors import StartError
from mlflow_grpc.rollout.model_regions import ModelRegions


def model(uri: str, **more: Any) -> ModelConfig:
    return ModelConfig(uri=uri, **more)


def test_a_model_keeps_its_region():
    """Whatever comes before it in the file; another URI under the same name is the same model."""
    regions = ModelRegions(10)
    assert regions.of([model("a"), model("b", name="x")]) == (0, 1)
    assert regions.of([model("c"), model("d", name="x"), model("a")]) == (2, 1, 0)
    assert regions.of([model("b", name="x")]) == (1,)


def test_models_of_one_name_have_regions_of_their_own():
    """Versions of a model, and models that only their order distinguishes."""
    regions = ModelRegions(10)
    models = [model("a", name="x", version="1"), model("a", name="x", version="2"), model("a"), model("a")]
    assert regions.of(models) == (0, 1, 2, 3)


def test_models_without_room_are_refused():
    """A refused configuration takes no room."""
    regions = ModelRegions(2)
    regions.of([model("a")])
    with pytest.raises(StartError, match="restart the server"):
        regions.of([model("b"), model("c")])
    assert regions.of([model("d")]) == (1,)
