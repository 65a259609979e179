"""The served model that all examples call, its own predictions, and a Redis."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from tests.client.conftest import Iris, iris
from tests.gallery.example import EXAMPLES, Example
from tests.support.servers import Process, free_port

__all__ = ["iris"]

Labels = dict[str, str]
"""Species by the id of the flower, both as texts."""


@pytest.fixture(scope="session")
def labels(iris: Iris) -> Labels:
    """MLflow's predictions for the flowers of the examples."""
    flowers = pd.read_csv(EXAMPLES / "flowers.csv", dtype={"id": str}).set_index("id")
    predictions = mlflow.pyfunc.load_model(str(iris.path)).predict(flowers)
    assert len(set(predictions)) == 3
    return dict(zip(flowers.index, predictions, strict=True))


@pytest.fixture
def example(iris: Iris, tmp_path: Path) -> Callable[..., Example]:
    """Copies an example with the flowers beside it; its commands call the served model."""

    def copied(name: str, **variables: str) -> Example:
        shutil.copy(EXAMPLES / "flowers.csv", tmp_path)
        folder = shutil.copytree(EXAMPLES / name, tmp_path / name, ignore=shutil.ignore_patterns("node_modules"))
        return Example(folder, MODEL_ADDRESS=iris.address, **variables)

    return copied


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """The URL of a new Redis."""
    program = shutil.which("redis-server")
    assert program, "redis-server is not on the PATH: `make examples` says which packages have what the examples need"
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with Process(command) as redis:
        redis.wait_for("Ready to accept connections")
        yield f"redis://127.0.0.1:{port}/0"


def lines(labels: Labels) -> str:
    """Returns what the programs of several examples print: an id and a species on each line."""
    return "".join(f"{flower} {species}\n" for flower, species in labels.items())
