"""Servers for clients of the Open Inference Protocol, in the process that imports them."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from mlflow_grpc.config import ModelConfig
from tests.support import zoo
from tests.support.servers import InProcess, serving_models
from tests.support.shared import made_once

MODELS = ["rows_every_column", "rows_tensors", "rows_params"]


@pytest.fixture(scope="session")
def server(iris_path, tmp_path_factory) -> Iterator[InProcess]:
    """The example model, and models of the zoo that describe their input."""
    paths = {"iris": iris_path}
    for name in MODELS:
        paths[name] = made_once(tmp_path_factory, f"zoo_{name}", partial(zoo.save, name))
    models: list[tuple[ModelConfig, Any]] = [
        (ModelConfig(uri=str(path), name=name, endpoint=True), None) for name, path in paths.items()
    ]
    with serving_models(models, http_port=0) as running:
        yield running
