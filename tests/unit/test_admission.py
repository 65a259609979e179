"""engine/admission.py: how many calls may be in, and what those are told that may not."""

import asyncio
import time

import pytest

from mlflow_grpc.engine.admission import LEAST_PAUSE_S, MOST_PAUSE_S, Admission, Stage
from mlflow_grpc.errors import NotReady, Overloaded


class Clock:
    """Stands still until a test moves it."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def opened(*, most_calls=3, most_bytes=1000, at_once=1, timeout_s=60.0, clock=time.monotonic):
    admission = Admission(
        most_calls=most_calls, most_bytes=most_bytes, at_once=at_once, timeout_s=timeout_s, clock=clock
    )
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
    clock = Clock()
    admission = opened(most_calls=1000, clock=clock)
    for _ in range(1000):
        admission.enter(0)
    for _ in range(200):
        admission.leave(0)
        admission.enter(0)
    with pytest.raises(Overloaded) as caught:
        admission.check()
    assert LEAST_PAUSE_S * 0.75 <= caught.value.retry_after_s <= MOST_PAUSE_S * 1.25
    clock.now += 1e6
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


def busy(*, seconds_a_call, waiting, clock, **bounds):
    """An admission that has seen a queue of this length for some time, answered at this pace."""
    admission = opened(most_calls=10_000, clock=clock, **bounds)
    for _ in range(waiting):
        admission.arrive()
        admission.enter(0)
    for _ in range(200):
        clock.now += seconds_a_call
        admission.leave(0)
        admission.enter(0)
    return admission


def test_a_call_that_cannot_be_answered_in_time_is_refused():
    """100 calls at 10 ms each take a second: a call with two is let in, and one with half a second is not; the pause
    that it is asked for is about as long as it takes until such a call would be.
    """
    admission = busy(seconds_a_call=0.01, waiting=100, clock=Clock())
    admission.arrive(lambda: 2.0)
    with pytest.raises(Overloaded, match="longer than this one has time") as caught:
        admission.arrive(lambda: 0.5)
    assert 0.5 <= caught.value.retry_after_s <= 1.0


def test_the_servers_time_limit_counts_too():
    """For callers without a deadline, and for those with a longer one."""
    admission = busy(seconds_a_call=0.01, waiting=100, clock=Clock(), timeout_s=0.5)
    for remaining_s in (None, 100.0):
        with pytest.raises(Overloaded):
            admission.arrive(lambda remaining_s=remaining_s: remaining_s)


def test_nobody_is_refused_for_time_while_calls_do_not_wait():
    """How slow a model was with one call says nothing when it runs several at a time; the deadline is not even asked."""
    clock = Clock()
    admission = opened(most_calls=100, at_once=4, clock=clock)
    for _ in range(50):
        admission.arrive()
        admission.enter(0)
        clock.now += 1.0
        admission.leave(0)
        admission.depart()
    for _ in range(4):
        admission.arrive(lambda: pytest.fail("asked"))
        admission.enter(0)


def test_a_short_queue_says_nothing_of_a_long_one():
    """A burst upon a model that was hardly busy is let in if it predicts calls together, and may manage it."""
    admission = busy(seconds_a_call=0.1, waiting=5, clock=Clock())
    admission.throughput.is_batched = True
    with pytest.raises(Overloaded):
        admission.arrive(lambda: 0.2)
    for _ in range(100):
        admission.arrive(lambda: 1.1)


def test_a_burst_upon_a_model_that_takes_one_call_after_the_other():
    """No more are let in than it answers in time."""
    admission = busy(seconds_a_call=0.1, waiting=5, clock=Clock())
    for _ in range(5):
        admission.arrive(lambda: 1.1)
        admission.enter(0)
    with pytest.raises(Overloaded):
        admission.arrive(lambda: 1.1)


def test_calls_that_were_given_up_are_no_answers():
    """Those that leave because their deadline passed make a model no faster."""
    clock = Clock()
    admission = busy(seconds_a_call=0.01, waiting=100, clock=clock)
    for _ in range(1000):
        clock.now += 0.001
        admission.leave(0, answered=False)
        admission.enter(0)
    with pytest.raises(Overloaded):
        admission.arrive(lambda: 0.5)
