"""workers.py: when a worker that has ended is replaced."""

import errno
import multiprocessing
import os
import time
from types import SimpleNamespace
from typing import Any

import pytest

from mlflow_grpc import config, forks, workers
from mlflow_grpc.errors import StartError
from mlflow_grpc.settings import Settings
from mlflow_grpc.worker_handle import WorkerHandle, WorkerStart


def test_a_first_worker_that_cannot_be_started(monkeypatch):
    """A machine without room for the first worker stops the start with an error instead of a traceback."""

    def refuse(*_: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(forks.Fork, "start", refuse)
    monkeypatch.setattr(workers, "_import_libraries", lambda _: None)
    settings = Settings(model_uri="(none)", port=0, workers=2)
    with pytest.raises(StartError, match=r"worker 0 cannot be started: Resource temporarily unavailable; .*--workers"):
        workers.supervise(settings, config.load(settings))


@pytest.fixture
def restart_delay():
    """Ends worker 0 after it served calls for some seconds, or None for never; returns the delay of its restart."""
    settings = Settings(model_uri="(none)", port=0, workers=2)
    configuration = config.load(settings)
    supervisor: Any = workers._Supervisor(settings, configuration)
    supervisor._opened = True

    def end_worker(served_s: float | None) -> float:
        since = None if served_s is None else time.monotonic() - served_s
        process: Any = SimpleNamespace(exitcode=-9, pid=1)
        supervisor_end, worker_end = multiprocessing.Pipe()
        worker_end.close()
        supervisor_versions, worker_versions = multiprocessing.Pipe()
        worker_versions.close()
        start = WorkerStart(0, configuration)
        worker = WorkerHandle(start, process, supervisor_end, supervisor_versions, serving_since=since)
        supervisor._workers[0] = worker
        supervisor._reap(worker)
        restart_at: float = supervisor._restart_at.pop(0)
        return round(restart_at - time.monotonic())

    yield end_worker
    for resource in (
        *supervisor._reserved,
        supervisor._lifeline_end,
        supervisor._lifeline,
        supervisor._wakeup,
        supervisor._signalled,
    ):
        resource.close()


def test_a_worker_that_never_serves_calls_waits_longer_each_time(restart_delay):
    """The delay grows, however long the worker loads before it fails."""
    assert [restart_delay(None) for _ in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]


def test_a_worker_that_served_calls_for_a_while_is_replaced_at_once(restart_delay):
    """Earlier failures do not count; a worker that served for a shorter time is delayed."""
    assert [restart_delay(served_s) for served_s in (1, 1, 1, 60, 60, 1)] == [0, 1, 2, 0, 0, 1]
