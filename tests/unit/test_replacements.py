"""replacements.py: which worker is replaced by what, and what happens when a process ends in the middle."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlflow_grpc.config import Configuration, ModelConfig
from mlflow_grpc.process import END_REPLACED
from mlflow_grpc.replacements import KILL_AFTER_S, Replacements
from mlflow_grpc.rollout.config_file import ConfigurationFile
from mlflow_grpc.settings import Settings
from mlflow_grpc.telemetry.configuration_metrics import ConfigurationMetrics
from mlflow_grpc.telemetry.instruments import Instruments
from mlflow_grpc.telemetry.memory import Memory
from mlflow_grpc.worker_handle import WorkerHandle, WorkerStart

URI, VERSION = "models:/churn@champion", ("churn", "2")
DRAIN_S = 30.0


class Bench:
    """Workers without processes; a test says what happens to them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, uri: str = URI) -> None:
        self.configuration = Configuration(models=(ModelConfig(uri=uri, endpoint=True),))
        self.workers: dict[int, WorkerHandle] = {}
        self.versions: dict[str, tuple[str, str]] = {}
        self.signals: list[tuple[int, int]] = []
        self.readers: dict[int, Any] = {}
        self.has_room = True
        self.replacements = Replacements(
            *(self.configuration, self.workers, self.versions, self.start, self._free_number), drain_timeout_s=DRAIN_S
        )
        monkeypatch.setattr(os, "kill", lambda pid, number: self.signals.append((pid, number)))

    def _free_number(self) -> int:
        return next(number for number in range(9) if number not in self.workers)

    def start(self, start: WorkerStart) -> None:
        if not self.has_room:
            raise BlockingIOError("no room")
        pipe, reader = multiprocessing.Pipe()
        versions, _ = multiprocessing.Pipe()
        process: Any = SimpleNamespace(exitcode=None, pid=100 + start.number)
        process.kill = lambda: self.signals.append((process.pid, signal.SIGKILL))
        self.workers[start.number] = WorkerHandle(start, process, pipe, versions)
        self.readers[start.number] = reader

    def serve(self, number: int) -> None:
        """Makes a worker serve."""
        self.workers[number].serving_since = time.monotonic()
        self.replacements.has_opened(self.workers[number])

    def end(self, number: int, *, reason: str = "") -> bool:
        """Ends a worker; returns True if the supervisor has nothing to do."""
        worker = self.workers.pop(number)
        worker.reason, worker.process.exitcode = reason, 2  # type: ignore[misc]
        return self.replacements.has_ended(worker)

    def answer(self, number: int) -> str | None:
        """Returns the answer to the request of a worker; None if there is no answer."""
        reader = self.readers[number]
        return reader.recv() if reader.poll() else None


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A server with one worker that requests another process."""
    bench = Bench(monkeypatch)
    bench.start(WorkerStart(0, bench.configuration))
    bench.serve(0)
    bench.workers[0].served = b"what it serves"
    bench.replacements.request(bench.workers[0], URI, VERSION)
    bench.replacements.step()
    return bench


def test_a_worker_is_replaced_once_the_next_one_serves(bench):
    """It is ended by its signal, others get the version, and the next request waits until it has ended."""
    assert bench.workers[1].start == WorkerStart(1, bench.configuration, {URI: VERSION}, 0, b"what it serves")
    assert (bench.signals, bench.versions) == ([], {})
    bench.serve(1)
    assert (bench.signals, bench.versions) == ([(100, END_REPLACED)], {URI: VERSION})
    bench.replacements.request(bench.workers[1], URI, ("churn", "3"))
    bench.replacements.step()
    assert list(bench.workers) == [0, 1]
    assert bench.end(0)
    bench.replacements.step()
    assert bench.workers[0].start.versions == {URI: ("churn", "3")}


def test_a_worker_that_does_not_end_is_killed(bench, monkeypatch):
    """After the drain timeout."""
    bench.serve(1)
    now = time.monotonic()
    bench.replacements.step()
    assert bench.signals == [(100, END_REPLACED)]
    assert now < bench.replacements.next_at <= now + DRAIN_S + KILL_AFTER_S
    monkeypatch.setattr(time, "monotonic", lambda: now + DRAIN_S + KILL_AFTER_S + 1)
    bench.replacements.step()
    assert bench.signals[-1] == (100, signal.SIGKILL)


@pytest.mark.parametrize(("reason", "answer"), [("too large", "too large"), ("", "the new worker ended with code 2")])
def test_a_new_worker_that_fails_is_reported_to_the_old_one(bench, reason, answer):
    """It goes on, and may request another one."""
    assert bench.end(1, reason=reason)
    assert (bench.answer(0), bench.signals, bench.versions) == (answer, [], {})
    bench.replacements.step()
    assert list(bench.workers) == [0]
    bench.replacements.request(bench.workers[0], URI, VERSION)
    bench.replacements.step()
    assert list(bench.workers) == [0, 1]


def test_a_machine_without_room_is_reported(bench):
    """The old worker gets the reason."""
    bench.end(1)
    bench.answer(0)
    bench.has_room = False
    bench.replacements.request(bench.workers[0], URI, VERSION)
    bench.replacements.step()
    assert bench.answer(0) == "a worker cannot be started: no room"


def test_an_old_worker_that_dies_is_replaced_by_the_one_that_loads(bench):
    """No further worker is started for it; the new one is a worker like the others, and is replaced if it dies too."""
    assert bench.end(0)
    bench.serve(1)
    assert (bench.signals, bench.versions) == ([], {URI: VERSION})
    assert not bench.end(1)


def test_a_new_worker_that_dies_after_the_old_one_is_for_the_supervisor(bench):
    """Nobody serves then, so it is replaced like a worker that has died."""
    assert bench.end(0)
    assert not bench.end(1)
    assert bench.versions == {}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models.yaml"


@pytest.fixture
def watching(bench, path, monkeypatch):
    """Watches a file; returns a function that writes it, and lets the watch read it twice."""
    path.write_text(f"models: [{{uri: '{URI}'}}]")
    clock = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    metrics = ConfigurationMetrics(Instruments(Memory(), 0))
    bench.replacements.watch(ConfigurationFile(path, Settings(config=path), 10.0), metrics)

    def write(text: str | None = None, *, after_s: float = 20.0) -> ConfigurationMetrics:
        if text is not None:
            path.write_text(text)
        clock[0] += after_s
        for _ in range(2):
            bench.replacements.step()
            clock[0] += 1.0
        return metrics

    return write


def test_a_file_that_changes_takes_the_place_of_a_version(bench, watching):
    """The new worker has the models before the change, so it is not needed any more; the old one gets an answer."""
    watching("models: [{uri: b}]")
    assert bench.signals == [(101, signal.SIGKILL)]
    assert bench.end(1)
    assert bench.answer(0) == "the configuration file has changed meanwhile"
    bench.replacements.step()
    (model,) = bench.workers[1].start.configuration.models
    assert (model.uri, bench.workers[1].start.versions) == ("b", {})


def test_a_file_with_the_same_models_replaces_nothing(bench, watching):
    """Other text with the same meaning."""
    metrics = watching(f"# A comment.\nmodels:\n  - uri: {URI}\n")
    assert (bench.signals, metrics._behind.total()) == ([], 0)


def test_a_file_that_cannot_be_served_is_tried_again(bench, watching):
    """After a pause, which grows; and the versions that it made the workers agree on are forgotten."""
    bench.end(1)
    metrics = watching("models: [{uri: 'models:/b@x'}]")
    bench.versions["models:/b@x"] = ("b", "1")
    assert bench.end(1, reason="no such model")
    assert (metrics._attempts["failed"].total(), metrics._behind.total(), bench.versions) == (1, 1, {})
    watching(after_s=1.0)
    assert list(bench.workers) == [0]
    watching(after_s=30.0)
    assert list(bench.workers) == [0, 1]
    bench.serve(1)
    assert (metrics._attempts["ok"].total(), metrics._behind.total()) == (1, 0)
    assert bench.signals == [(100, END_REPLACED)]


def test_a_file_that_is_wrong_ends_the_attempts_with_the_one_before(bench, watching):
    """Nothing is served that no file says; the models that are served go on."""
    bench.end(1)
    metrics = watching("models: [{uri: b}]")
    watching("models: [")
    assert bench.signals == [(101, signal.SIGKILL)]
    assert bench.end(1)
    watching(after_s=1000.0)
    assert list(bench.workers) == [0]
    assert (metrics._attempts["failed"].total(), metrics._behind.total()) == (1, 1)
