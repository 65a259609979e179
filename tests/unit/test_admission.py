"""engine/admission.py: how many calls may be in, and what those are told that may not."""

import asyncio
import time

import pytest

from mlflow_grpc.engine.admission import MAX_RETRY_S, MIN_RETRY_S, Admission, Stage
from mlflow_grpc.errors import NotReady, Overloaded


class Clock:
    """Stands still until a test moves it."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def opened(*, max_calls=3, max_bytes=1000, concurrency=1, timeout_s=60.0, clock=time.monotonic):
    admission = Admission(
        max_calls=max_calls, max_bytes=max_bytes, concurrency=concurrency, timeout_s=timeout_s, clock=clock
    )
    admission.stage = Stage.OPEN
    return admission


def test_one_more_than_the_most_is_refused():
    """And let in again as soon as one has left."""
    admission = opened()
    for _ in range(3):
        admission.admit_request(1)
    with pytest.raises(Overloaded):
        admission.check()
    with pytest.raises(Overloaded):
        admission.admit_request(1)
    admission.release_request(1, answered=True)
    admission.admit_request(1)
    assert admission.admitted_calls == 3


def test_payloads_are_bounded_together():
    """A payload that is over the bound by itself is taken if it is alone."""
    admission = opened()
    admission.admit_request(5000)
    with pytest.raises(Overloaded, match="as large"):
        admission.admit_request(1)
    admission.release_request(5000, answered=True)
    admission.admit_request(600)
    with pytest.raises(Overloaded):
        admission.admit_request(401)
    admission.admit_request(400)


def test_the_pause_is_within_its_bounds():
    """Whether calls leave at once or never."""
    clock = Clock()
    admission = opened(max_calls=1000, clock=clock)
    for _ in range(1000):
        admission.admit_request(0)
    for _ in range(200):
        admission.release_request(0, answered=True)
        admission.admit_request(0)
    with pytest.raises(Overloaded) as caught:
        admission.check()
    assert MIN_RETRY_S * 0.75 <= caught.value.retry_after_s <= MAX_RETRY_S * 1.25
    clock.now += 1e6
    with pytest.raises(Overloaded) as caught:
        admission.check()
    assert MAX_RETRY_S * 0.75 <= caught.value.retry_after_s <= MAX_RETRY_S * 1.25


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
        admission.admit_request(1)
        waiting = asyncio.create_task(admission.wait_until_empty())
        await asyncio.sleep(0)
        assert not waiting.done()
        admission.release_request(1, answered=True)
        await waiting

    asyncio.run(check())


def busy(*, seconds_a_call, waiting, clock, **bounds):
    """An admission that has seen a queue of this length for some time, answered at this pace."""
    admission = opened(max_calls=10_000, clock=clock, **bounds)
    for _ in range(waiting):
        admission.admit_call()
        admission.admit_request(0)
    for _ in range(200):
        clock.now += seconds_a_call
        admission.release_request(0, answered=True)
        admission.admit_request(0)
    return admission


def test_a_call_that_cannot_be_answered_in_time_is_refused():
    """100 calls at 10 ms each take a second: a call with two is let in, and one with half a second is not; the pause
    that it is asked for is about as long as it takes until such a call would be.
    """
    admission = busy(seconds_a_call=0.01, waiting=100, clock=Clock())
    admission.admit_call(lambda: 2.0)
    with pytest.raises(Overloaded, match="longer than this one has time") as caught:
        admission.admit_call(lambda: 0.5)
    assert 0.5 <= caught.value.retry_after_s <= 1.0


def test_the_servers_time_limit_counts_too():
    """For callers without a deadline, and for those with a longer one."""
    admission = busy(seconds_a_call=0.01, waiting=100, clock=Clock(), timeout_s=0.5)
    for remaining_s in (None, 100.0):
        with pytest.raises(Overloaded):
            admission.admit_call(lambda remaining_s=remaining_s: remaining_s)


def test_nobody_is_refused_for_time_while_calls_do_not_wait():
    """How slow a model was with one call says nothing when it runs several at a time; the deadline is not even asked."""
    clock = Clock()
    admission = opened(max_calls=100, concurrency=4, clock=clock)
    for _ in range(50):
        admission.admit_call()
        admission.admit_request(0)
        clock.now += 1.0
        admission.release_request(0, answered=True)
        admission.close_call()
    for _ in range(4):
        admission.admit_call(lambda: pytest.fail("asked"))
        admission.admit_request(0)


def test_a_short_queue_says_nothing_of_a_long_one():
    """A burst upon a model that was hardly busy is let in if it predicts calls together, and may manage it."""
    admission = busy(seconds_a_call=0.1, waiting=5, clock=Clock())
    admission.throughput.is_batched = True
    with pytest.raises(Overloaded):
        admission.admit_call(lambda: 0.2)
    for _ in range(100):
        admission.admit_call(lambda: 1.1)


def test_a_burst_upon_a_model_that_takes_one_call_after_the_other():
    """No more are let in than it answers in time."""
    admission = busy(seconds_a_call=0.1, waiting=5, clock=Clock())
    for _ in range(5):
        admission.admit_call(lambda: 1.1)
        admission.admit_request(0)
    with pytest.raises(Overloaded):
        admission.admit_call(lambda: 1.1)


def test_calls_that_were_given_up_are_no_answers():
    """Those that leave because their deadline passed make a model no faster."""
    clock = Clock()
    admission = busy(seconds_a_call=0.01, waiting=100, clock=clock)
    for _ in range(1000):
        clock.now += 0.001
        admission.release_request(0, answered=False)
        admission.admit_request(0)
    with pytest.raises(Overloaded):
        admission.admit_call(lambda: 0.5)
