"""When a worker that has ended is replaced."""

import multiprocessing
import time
from types import SimpleNamespace
from typing import Any

import pytest

from mlflow_grpc import config, workers
from mlflow_grpc.settings import Settings


@pytest.fixture
def bury():
    """Buries worker 0, which took calls for so many seconds, or None if it never did; gives the pause after it."""
    settings = Settings(model_uri="(none)", port=0, workers=2)
    supervisor: Any = workers._Supervisor(settings, config.load(settings))
    supervisor._opened = True

    def end(took_calls_s: float | None) -> float:
        since = None if took_calls_s is None else time.monotonic() - took_calls_s
        process: Any = SimpleNamespace(exitcode=-9, pid=1)
        ours, theirs = multiprocessing.Pipe()
        theirs.close()
        worker = workers._Worker(0, process, ours, taking_since=since)
        supervisor._workers[0] = worker
        supervisor._bury(worker)
        due: float = supervisor._due.pop(0)
        return round(due - time.monotonic())

    yield end
    for each in (
        supervisor._reserved,
        supervisor._ours,
        supervisor._lifeline,
        supervisor._wakeup,
        supervisor._signalled,
    ):
        each.close()


def test_a_worker_that_never_takes_calls_waits_ever_longer(bury):
    """However long it loads before it fails."""
    assert [bury(None) for _ in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]


def test_a_worker_that_took_calls_for_a_while_is_replaced_at_once(bury):
    """Whatever was before; one that did not is not."""
    assert [bury(took_calls_s) for took_calls_s in (1, 1, 1, 60, 60, 1)] == [0, 1, 2, 0, 0, 1]
