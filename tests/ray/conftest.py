"""Clusters of Ray, the models that they serve, and the project's own server with the same models."""

import importlib.util
import runpy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ray.cluster import Cluster
from tests.support import stepper
from tests.support.servers import ROOT, ready_address, start_server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.ray)
            item.add_marker(pytest.mark.alone)
            item.add_marker(pytest.mark.timeout(600))


@dataclass
class Models:
    """Directories of models, a configuration file that lists both, and the folder in which clusters run."""

    folder: Path
    iris: Path
    steps: Path
    file: Path


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The example model, and a model that tests control step by step with one thread."""
    working = tmp_path_factory.mktemp("ray")
    folder = working / "models"
    folder.mkdir()
    (working / "deploy").symlink_to(ROOT / "deploy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Warnings of scikit-learn and MLflow about each other.
        runpy.run_path(str(ROOT / "models" / "train_iris.py"))["main"](folder / "iris")
        stepper.save(folder / "steps")
    file = folder / "models.yaml"
    listed = [
        {"uri": str(folder / "iris"), "name": "iris", "default": True},
        {"uri": str(folder / "steps"), "name": "steps"},
    ]
    file.write_text(yaml.safe_dump({"models": listed}))
    return Models(working, folder / "iris", folder / "steps", file)


def cluster_in(folder: Path, *, through_haproxy: bool) -> Iterator[Cluster]:
    """Runs a cluster with a working directory."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs Ray Serve: make ray")
    with Cluster(folder, through_haproxy=through_haproxy) as running:
        yield running


@pytest.fixture(scope="session")
def cluster(models: Models) -> Iterator[Cluster]:
    """A cluster whose HAProxy sends calls to the gRPC servers of the replicas."""
    yield from cluster_in(models.folder, through_haproxy=True)


@pytest.fixture(scope="module")
def address(cluster: Cluster, models: Models) -> str:
    """Address of an application with both models and one replica."""
    cluster.deploy(application(models, metrics=True))
    return cluster.address


LIMITS: dict[str, Any] = {"threads": 1, "queue_calls": 2}
"""Settings with which a second call to a model waits and a third one is refused."""


@pytest.fixture(scope="session")
def reference(models: Models) -> Iterator[str]:
    """Address of the project's own server with both models."""
    with start_server("--config", str(models.file), "--threads", "1", "--queue-calls", "2", fresh=True) as process:
        yield ready_address(process)


def application(models: Models, *, replicas: int = 1, metrics: bool = False, **settings: Any) -> dict[str, Any]:
    """Returns an application with both models, for a configuration of Ray Serve."""
    return {
        "name": "models",
        "args": {
            "config": str(models.file),
            "metrics": metrics,
            "settings": {**LIMITS, **settings},
            "deployment": {"num_replicas": replicas, "ray_actor_options": {"num_cpus": 0.5}},
        },
    }
