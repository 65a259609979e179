"""engine/admission.py: limits on calls, and the errors of refused calls."""

import asyncio
import time

import pytest

from mlflow_grpc.engine.admission import MAX_RETRY_S, MIN_RETRY_S, Admission, Stage
from mlflow_grpc.errors import NotReady, Overloaded


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def opened(*, max_requests=3, max_bytes=1000, concurrency=1, timeout_s=60.0, clock=time.monotonic):
    admission = Admission(
        max_requests=max_requests, max_bytes=max_bytes, concurrency=concurrency, timeout_s=timeout_s, clock=clock
    )
    admission.stage = Stage.OPEN
    return admission


def test_calls_beyond_the_limit_are_refused():
    """A call is refused at the limit, and admitted again as soon as another one has left."""
    admission = opened()
    for _ in range(3):
        admission.admit_request(1)
    with pytest.raises(Overloaded):
        admission.check()
    with pytest.raises(Overloaded):
        admission.admit_request(1)
    admission.release_request(1, answered=True)
    admission.admit_request(1)
    assert admission.admitted_requests == 3


def test_payloads_share_a_size_limit():
    """Payloads share one limit. A payload that exceeds it is admitted while it is alone."""
    admission = opened()
    admission.admit_request(5000)
    with pytest.raises(Overloaded, match="have reached the server's limit"):
        admission.admit_request(1)
    admission.release_request(5000, answered=True)
    admission.admit_request(600)
    with pytest.raises(Overloaded):
        admission.admit_request(401)
    admission.admit_request(400)


def test_retry_delay_is_bounded():
    """The retry delay stays within its bounds, whether calls leave at once or never."""
    clock = Clock()
    admission = opened(max_requests=1000, clock=clock)
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
def test_calls_are_refused_unless_the_stage_is_open(stage):
    """A call is refused while the stage is not OPEN, with the reason and advice to retry."""
    admission = opened()
    admission.stage = stage
    with pytest.raises(NotReady) as caught:
        admission.check()
    assert caught.value.message == stage.value


def test_wait_until_empty_returns_after_the_last_call():
    """`wait_until_empty` returns after the last call has left, or at once if there is none."""

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
    """Makes an admission that had a queue of this length for some time, answered at this rate."""
    admission = opened(max_requests=10_000, clock=clock, **bounds)
    for _ in range(waiting):
        admission.admit_call()
        admission.admit_request(0)
    for _ in range(200):
        clock.now += seconds_a_call
        admission.release_request(0, answered=True)
        admission.admit_request(0)
    return admission


def test_calls_that_would_miss_their_deadline_are_refused():
    """100 calls of 10 ms each take a second. A call with two seconds left is admitted, and one with half a second is
    refused. The retry delay is about the time until such a call would be admitted."""
    admission = busy(seconds_a_call=0.01, waiting=100, clock=Clock())
    admission.admit_call(lambda: 2.0)
    with pytest.raises(Overloaded, match="longer than this call has time") as caught:
        admission.admit_call(lambda: 0.5)
    assert 0.5 <= caught.value.retry_after_s <= 1.0


def test_server_time_limit_counts_as_a_deadline():
    """The server's time limit counts for callers without a deadline, and for those with a later one."""
    admission = busy(seconds_a_call=0.01, waiting=100, clock=Clock(), timeout_s=0.5)
    for remaining_s in (None, 100.0):
        with pytest.raises(Overloaded):
            admission.admit_call(lambda remaining_s=remaining_s: remaining_s)


def test_deadlines_do_not_count_while_no_call_waits():
    """A rate measured with one call says nothing about several at a time. The deadline is not even read."""
    clock = Clock()
    admission = opened(max_requests=100, concurrency=4, clock=clock)
    for _ in range(50):
        admission.admit_call()
        admission.admit_request(0)
        clock.now += 1.0
        admission.release_request(0, answered=True)
        admission.close_call()
    for _ in range(4):
        admission.admit_call(lambda: pytest.fail("asked"))
        admission.admit_request(0)


def test_batched_model_admits_a_burst_after_a_short_queue():
    """A burst of calls to a model that was hardly busy is admitted if the model is batched, because it may keep up."""
    admission = busy(seconds_a_call=0.1, waiting=5, clock=Clock())
    admission.throughput.is_batched = True
    with pytest.raises(Overloaded):
        admission.admit_call(lambda: 0.2)
    for _ in range(100):
        admission.admit_call(lambda: 1.1)


def test_unbatched_model_admits_only_what_it_answers_in_time():
    """A model that takes one call at a time admits only as many calls of a burst as it answers in time."""
    admission = busy(seconds_a_call=0.1, waiting=5, clock=Clock())
    for _ in range(5):
        admission.admit_call(lambda: 1.1)
        admission.admit_request(0)
    with pytest.raises(Overloaded):
        admission.admit_call(lambda: 1.1)


def test_callers_that_leave_a_stream_early_do_not_count_as_answers():
    """Requests whose callers left just after they were admitted, or before the last chunk, do not count as answers."""

    async def check():
        clock = Clock()
        admission = busy(seconds_a_call=0.01, waiting=100, clock=clock)
        for _ in range(500):
            await admission.admit_in_order(400)
            leaving = asyncio.create_task(admission.admit_in_order(400))  # More than the streams' share of the room.
            await asyncio.sleep(0)
            clock.now += 0.001
            admission.release_in_order(400, answered=False)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            clock.now += 0.001
            with pytest.raises(GeneratorExit), admission.admit_request(0):
                raise GeneratorExit
        with pytest.raises(Overloaded):
            admission.admit_call(lambda: 0.5)

    asyncio.run(check())


def test_abandoned_calls_do_not_count_as_answers():
    """Calls that leave because their deadline passed do not count as answers."""
    clock = Clock()
    admission = busy(seconds_a_call=0.01, waiting=100, clock=clock)
    for _ in range(1000):
        clock.now += 0.001
        admission.release_request(0, answered=False)
        admission.admit_request(0)
    with pytest.raises(Overloaded):
        admission.admit_call(lambda: 0.5)
