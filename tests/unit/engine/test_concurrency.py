"""engine/concurrency.py: limit on the concurrent calls of a model."""

import asyncio
import itertools
import sys
import threading

import pytest

from mlflow_grpc.engine.concurrency import (
    FIRST_TRIAL_S,
    INTERVAL_S,
    LEARNING_RATE,
    MAX_TRIAL_S,
    MAX_WAIT_S,
    SETTLING_S,
    Concurrency,
    LoopSample,
    sample_event_loop,
)

LATE, IN_TIME = 2 * MAX_WAIT_S, MAX_WAIT_S / 2


def limits(concurrency, waits, *, began=0.0, requests=100, model_share=1.0):
    """Returns the limit after each measurement of an event loop that waits this long, in seconds."""
    seen = []
    for number, wait_s in enumerate(waits):
        concurrency.update(LoopSample(began + number * SETTLING_S, wait_s), requests=requests, model_share=model_share)
        seen.append(concurrency.limit)
    return seen


def test_the_limit_falls_while_the_event_loop_waits():
    """The limit falls to one call at a time, with time for each limit to take effect."""
    concurrency = Concurrency(4)
    assert limits(concurrency, [LATE, LATE, LATE]) == [2, 1, 1]
    concurrency = Concurrency(4)
    for moment in (0.0, SETTLING_S / 2):
        concurrency.update(LoopSample(moment, LATE), requests=100, model_share=1.0)
    assert concurrency.limit == 2


def test_a_model_that_does_not_compute_keeps_its_threads():
    """A model that does not compute keeps its threads while another model holds the interpreter."""
    assert limits(Concurrency(4), [LATE] * 5, model_share=0.1) == [4] * 5


def test_a_few_calls_keep_their_threads():
    """A few calls do not lower the limit, and all threads are back at once when the load has gone."""
    concurrency = Concurrency(4)
    assert limits(concurrency, [LATE] * 5, requests=5) == [4] * 5
    assert limits(concurrency, [LATE, LATE]) == [2, 1]
    assert limits(concurrency, [LATE], began=10.0, requests=5) == [4]


def test_trials_of_a_higher_limit_back_off():
    """The time between trials of a higher limit doubles until a trial succeeds."""
    concurrency, now, trials = Concurrency(2), 0.0, []
    while now < 500.0:
        # One thread leaves the event loop enough of the interpreter; two do not.
        before = concurrency.limit
        concurrency.update(LoopSample(now, LATE if before > 1 else IN_TIME), requests=100, model_share=1.0)
        if concurrency.limit > before:
            trials.append(now)
        now += INTERVAL_S
    pauses = [after - trial for trial, after in itertools.pairwise(trials)]
    assert FIRST_TRIAL_S <= trials[0] < 2 * FIRST_TRIAL_S
    assert [round(pause) for pause in pauses] == sorted(round(pause) for pause in pauses)
    assert MAX_TRIAL_S <= max(pauses) < MAX_TRIAL_S + 2
    assert limits(concurrency, [IN_TIME] * 200, began=now)[-1] == 2


@pytest.mark.alone
def test_threads_that_compute_in_python_are_detected():
    """A thread that computes in Python makes the event loop wait for its turn; an idle interpreter does not."""
    turn_s = 0.02
    ended = threading.Event()

    def compute():
        while not ended.is_set():
            sum(range(1000))

    async def waits_s():
        """Yields the single waits of the event loop, from their moving mean."""
        mean_s = 0.0
        async for sample in sample_event_loop():
            yield mean_s + (sample.wait_s - mean_s) / LEARNING_RATE
            mean_s = sample.wait_s

    async def measured():
        seen = waits_s()
        alone_s = [await anext(seen) for _ in range(5)]
        thread = threading.Thread(target=compute)
        thread.start()
        try:
            beside_s = 0.0
            for _ in range(50):  # On a busy machine, the thread may miss its turn.
                beside_s = max(beside_s, await anext(seen))
                if beside_s > turn_s / 4:
                    break
        finally:
            ended.set()
            thread.join()
            await seen.aclose()
        return alone_s, beside_s

    before_s = sys.getswitchinterval()
    sys.setswitchinterval(turn_s)
    try:
        alone_s, beside_s = asyncio.run(measured())
    finally:
        sys.setswitchinterval(before_s)
    # On a busy machine, a measurement may also wait for a processor.
    assert min(alone_s) < turn_s / 4 < beside_s
