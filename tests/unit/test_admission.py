"""engine/admission.py: how many calls may be in, and what those are told that may not."""

import asyncio

import pytest

from mlflow_grpc.engine.admission import LEAST_PAUSE_S, MOST_PAUSE_S, Admission, Stage
from mlflow_grpc.errors import NotReady, Overloaded


def opened(*, most_calls=3, most_bytes=1000):
    admission = Admission(most_calls=most_calls, most_bytes=most_bytes)
    admission.stage = Stage.OPEN
    return admission


def test_one_more_than_the_most_is_refused():
    """And let in again as soon as one has left."""
    admission = opened()
    for _ in range(3):
        admission.enter(1)
    with pytest.raises(Overloaded):
        admission.check()
    with pytest.raises(Overloaded):
        admission.enter(1)
    admission.leave(1)
    admission.enter(1)
    assert admission.in_flight == 3


def test_payloads_are_bounded_together():
    """A payload that is over the bound by itself is taken if it is alone."""
    admission = opened()
    admission.enter(5000)
    with pytest.raises(Overloaded, match="as large"):
        admission.enter(1)
    admission.leave(5000)
    admission.enter(600)
    with pytest.raises(Overloaded):
        admission.enter(401)
    admission.enter(400)


def test_the_pause_is_within_its_bounds():
    """Whether calls leave at once or never."""
    admission = opened(most_calls=1000)
    for _ in range(1000):
        admission.enter(0)
    for _ in range(200):
        admission.leave(0)
        admission.enter(0)
    with pytest.raises(Overloaded) as caught:
        admission.check()
    assert LEAST_PAUSE_S * 0.75 <= caught.value.retry_after_s <= MOST_PAUSE_S * 1.25
    admission._last_left -= 1e6
    with pytest.raises(Overloaded) as caught:
        admission.check()
    assert MOST_PAUSE_S * 0.75 <= caught.value.retry_after_s <= MOST_PAUSE_S * 1.25


@pytest.mark.parametrize("stage", [Stage.LOADING, Stage.DRAINING])
def test_nobody_comes_in_while_it_is_not_open(stage):
    """Callers are told why, and that they may try again."""
    admission = opened()
    admission.stage = stage
    with pytest.raises(NotReady) as caught:
        admission.check()
    assert caught.value.message == stage.value


def test_waiting_until_the_last_has_left():
    """At once if there is none."""

    async def check():
        admission = opened()
        await admission.wait_until_empty()
        admission.enter(1)
        waiting = asyncio.create_task(admission.wait_until_empty())
        await asyncio.sleep(0)
        assert not waiting.done()
        admission.leave(1)
        await waiting

    asyncio.run(check())
