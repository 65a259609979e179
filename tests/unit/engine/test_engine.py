"""engine/engine.py: requests of a stream while there is no room."""

import asyncio
import time
from typing import Any

import pytest

from mlflow_grpc.engine.admission import Admission, Stage
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.requests import NoObserver, TextRequest
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.engine.thread_pool import ModelThreadPool
from mlflow_grpc.errors import CallerDeadlineExceeded, TimeLimitExceeded
from mlflow_grpc.telemetry.metrics import ALONE
from tests.support.models import FunctionModel, PlainCodec


def engine(**more: Any) -> Engine:
    admission = Admission(max_requests=2, max_bytes=100, concurrency=1, timeout_s=60)
    admission.stage = Stage.OPEN
    started = Engine(ModelThreadPool(1), admission, **{"timeout_s": 60, **more})
    started.host(ServableModel(FunctionModel(str), PlainCodec()))
    return started


def request(text: str) -> TextRequest:
    return TextRequest(text, None, NoObserver())


def deadline(remaining_s: float | None) -> float | None:
    return None if remaining_s is None else time.monotonic() + remaining_s


@pytest.mark.parametrize(
    ("timeout_s", "remaining_s", "error"), [(0.05, None, TimeLimitExceeded), (60, 0.05, CallerDeadlineExceeded)]
)
def test_waiting_for_room_has_a_time_limit(timeout_s, remaining_s, error):
    """The server's or the caller's time limit ends the wait for room. The next request in line gets the room."""

    async def run() -> None:
        tested = engine(timeout_s=timeout_s)
        tested.admission.admit_request(1)
        with pytest.raises(error):
            await tested.submit(request("late"), deadline(remaining_s))
        behind = asyncio.ensure_future(tested.submit(request("behind"), None))
        await asyncio.sleep(0)
        tested.admission.release_request(1, answered=True)
        assert await (await behind) == "behind"
        await asyncio.sleep(0)
        assert (tested.admission.admitted_requests, tested.admission.open_calls) == (0, 0)
        tested.threads.close()

    asyncio.run(run())


@pytest.mark.parametrize(("timeout_s", "code"), [(0.05, "DEADLINE_EXCEEDED"), (60, "CANCELLED")])
def test_requests_that_never_get_room_are_counted(timeout_s, code):
    """A request of a stream that runs out of time while it waits for room, or whose caller leaves, is in the metrics."""
    metrics = ALONE.metrics(1).add_model(rpcs=0)

    async def run() -> None:
        tested = engine(timeout_s=timeout_s, metrics=metrics)
        tested.admission.admit_request(1)
        waiting = asyncio.ensure_future(tested.submit(request("late"), None))
        await asyncio.sleep(0)
        if code == "CANCELLED":
            waiting.cancel()
        with pytest.raises((TimeLimitExceeded, asyncio.CancelledError)):
            await waiting
        tested.threads.close()

    asyncio.run(run())
    metrics.count()
    assert {name: counter.total() for name, counter in metrics._requests.items() if counter.total()} == {code: 1}


def test_room_of_a_stream_cancelled_on_admission_is_released():
    """Room is released if the stream is cancelled between the admission and the next step of its task."""

    async def run() -> None:
        tested = engine()
        tested.admission.admit_request(1)
        going = asyncio.ensure_future(tested.submit(request("going"), None))
        await asyncio.sleep(0)
        tested.admission.release_request(1, answered=True)
        assert tested.admission.admitted_requests == 1
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        assert (tested.admission.admitted_requests, tested.admission.open_calls) == (0, 0)
        tested.threads.close()

    asyncio.run(run())
