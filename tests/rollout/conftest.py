"""A registry whose aliases tests move, and servers that follow it."""

import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from mlflow_grpc import protos
from tests.support.fork_server import fork_server
from tests.support.rollout_registry import NAME
from tests.support.scrapes import Scrape
from tests.support.servers import Caller, ForkedRolloutRegistry, Process, ready_address, start_server
from tests.support.shared import made_once

ROW = '{"dataframe_split": {"columns": ["a"], "data": [[1.0]]}}'
VERSION_KEY = "mlflow-model-version"
INTERVAL = "0.2"
"""Interval of the queries, in seconds."""


def predicted(number: int) -> str:
    """Returns the text of an answer with one prediction."""
    return f'{{"predictions": [{number}]}}'


def pytest_collection_finish():
    """Starts the fork server, which imports MLflow while the first tests run."""
    fork_server()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the database of a registry and its models."""

    def make(unfinished: Path) -> None:
        # The registry has absolute paths, and the directory is renamed.
        folder = unfinished.parent / "rollout_models"
        folder.mkdir()
        unfinished.mkdir()
        with ForkedRolloutRegistry([f"sqlite:///{unfinished}/registry.db", str(folder)]) as process:
            assert process.wait(300) == 0, process.output

    return made_once(tmp_path_factory, "rollout_registry", make)


class Registry:
    """A copy of the registry."""

    def __init__(self, models: Path, folder: Path) -> None:
        self.path = folder / "registry.db"
        shutil.copy(models / "registry.db", self.path)
        self.uri = f"sqlite:///{self.path}"
        # Not a client of MLflow, which would open the tables of runs too and check them, in seven times the time.
        self.store: Any = SqlAlchemyStore(self.uri)

    def move(self, version: str, *, name: str = NAME, alias: str = "champion") -> None:
        self.store.set_registered_model_alias(name, alias, version)

    def set_status(self, version: str, status: str) -> None:
        """Sets a status that a version has only for moments otherwise."""
        with sqlite3.connect(self.path) as database:
            database.execute(
                "UPDATE model_versions SET status = ? WHERE name = ? AND version = ?", (status, NAME, int(version))
            )
        database.close()


@pytest.fixture
def registry(models: Path, tmp_path: Path) -> Registry:
    return Registry(models, tmp_path)


class Tracking:
    """A server that follows a registry, and a caller."""

    def __init__(self, process: Process, folder: Path) -> None:
        self.process, self.folder = process, folder
        self.address = ready_address(process)
        self.http_url = process.wait_for(r"HTTP on (http://[\d.:]+)")[1]
        self.call = Caller(self.address)

    def answer(self, row: str = ROW, **metadata: str) -> tuple[str, str]:
        """Returns the text of an answer, and the version in its trailers."""
        pairs = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
        data, call = self.call.raw.with_call(protos.Input(value=row).SerializeToString(), timeout=30, metadata=pairs)
        output: Any = protos.Output.FromString(data)
        return output.value, dict(call.trailing_metadata()).get(VERSION_KEY, "")

    def wait_for_version(self, version: str, *, times: int = 1) -> None:
        self.process.wait_for(rf"/{version} is served from now on", times=times)

    def wait_until_unloaded(self, version: str, *, times: int = 1) -> None:
        self.process.wait_for(rf"/{version} is unloaded", times=times)

    def wait_until_replaced(self, *, times: int = 1) -> None:
        """Waits until a worker has ended, in whose place another one serves."""
        self.process.wait_for(r"worker \d \(pid \d+\) has ended", times=times)

    @property
    def directories(self) -> list[str]:
        """Directories of versions on the disk."""
        return sorted(path.name for path in self.folder.iterdir())

    def described(self) -> Any:
        """Returns the model in the list of models."""
        response = protos.message_named("mlflow_grpc.v1.ListModelsResponse")
        ask: Any = self.call.channel.unary_unary(
            "/mlflow_grpc.v1.Models/ListModels", response_deserializer=response.FromString
        )
        (model,) = ask(b"", timeout=30).models
        return model

    def metrics(self) -> Scrape:
        return Scrape(self.http_url)

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of all workers, in the order of their start."""
        return [int(pid) for pid in re.findall(r"worker \d+ started, pid (\d+)", self.process.output)]

    def rss_mb(self) -> float:
        """Returns the memory of the worker that was started last, or of a server without workers."""
        return _rss_mb((self.process.popen.pid, *self.worker_pids)[-1])

    def supervisor_mb(self) -> float:
        """Returns the memory of the supervisor, most of which the worker shares."""
        return _rss_mb(self.process.popen.pid)


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.fixture
def track(registry: Registry, tmp_path: Path) -> Iterator[Callable[..., Tracking]]:
    """Returns a function that starts a server which follows an alias of the registry, unless `interval` is None."""
    with ExitStack() as stack:

        def start(
            *flags: str,
            uri: str = "models:/churn@champion",
            env: dict[str, str] | None = None,
            interval: str | None = INTERVAL,
        ) -> Tracking:
            folder = tmp_path / "temporary"
            folder.mkdir()
            process = stack.enter_context(
                start_server(
                    *(() if "--config" in flags else ("-m", uri)),
                    *(("--track", interval) if interval is not None else ()),
                    *("--http-port", "0", *flags),
                    env={"MLFLOW_TRACKING_URI": registry.uri, "TMPDIR": str(folder), **(env or {})},
                )
            )
            tracking = Tracking(process, folder)
            stack.enter_context(tracking.call)
            return tracking

        yield start
