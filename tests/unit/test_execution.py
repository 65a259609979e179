"""engine/execution.py: what becomes of a request of a stream while there is no room."""

import asyncio
from typing import Any

import pytest

from mlflow_grpc.engine.admission import Admission, Stage
from mlflow_grpc.engine.execution import Engine
from mlflow_grpc.engine.threads import ModelThreads
from mlflow_grpc.errors import CallerGaveUp, TimeLimitExceeded
from tests.support.models import FunctionModel, PlainCodec


def engine(**more: Any) -> Engine:
    admission = Admission(most_calls=2, most_bytes=100, at_once=1, timeout_s=60)
    admission.stage = Stage.OPEN
    made = Engine(ModelThreads(1), admission, **{"timeout_s": 60, **more})
    made.host(FunctionModel(str), PlainCodec())
    return made


@pytest.mark.parametrize(
    ("timeout_s", "remaining_s", "error"), [(0.05, None, TimeLimitExceeded), (60, 0.05, CallerGaveUp)]
)
def test_waiting_for_room_has_the_time_limit_of_the_call(timeout_s, remaining_s, error):
    """Of the server or of the caller; whoever waits behind gets the room that was meant for it."""

    async def run() -> None:
        made = engine(timeout_s=timeout_s)
        made.admission.enter(1)
        with pytest.raises(error):
            await made.begin(made.text("late", None), time_remaining_s=remaining_s)
        behind = asyncio.ensure_future(made.begin(made.text("behind", None), time_remaining_s=None))
        await asyncio.sleep(0)
        made.admission.leave(1)
        assert await (await behind) == "behind"
        await asyncio.sleep(0)
        assert (made.admission.in_flight, made.admission.present) == (0, 0)
        made.threads.close()

    asyncio.run(run())


def test_a_turn_that_comes_as_its_stream_goes_is_given_back():
    """Cancelled between being let in and going on."""

    async def run() -> None:
        made = engine()
        made.admission.enter(1)
        going = asyncio.ensure_future(made.begin(made.text("going", None), time_remaining_s=None))
        await asyncio.sleep(0)
        made.admission.leave(1)
        assert made.admission.in_flight == 1
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        assert (made.admission.in_flight, made.admission.present) == (0, 0)
        made.threads.close()

    asyncio.run(run())
