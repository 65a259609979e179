"""engine/concurrency.py: how many calls of a model run at a time."""

import asyncio
import itertools
import threading

from mlflow_grpc.engine.concurrency import (
    FIRST_TRIAL_S,
    INTERVAL_S,
    MAX_TRIAL_S,
    MAX_WAIT_S,
    SETTLING_S,
    Concurrency,
    LoopSample,
    sample_event_loop,
)

LATE, IN_TIME = 2 * MAX_WAIT_S, MAX_WAIT_S / 2


def limits(concurrency, waits, *, began=0.0, calls=100, model_share=1.0):
    """The limit after each look at an event loop that waits for so long, in seconds."""
    seen = []
    for number, wait_s in enumerate(waits):
        concurrency.update(LoopSample(began + number * SETTLING_S, wait_s), calls=calls, model_share=model_share)
        seen.append(concurrency.limit)
    return seen


def test_the_limit_falls_while_the_event_loop_waits():
    """Down to one call at a time, each limit having had time to show."""
    concurrency = Concurrency(4)
    assert limits(concurrency, [LATE, LATE, LATE]) == [2, 1, 1]
    concurrency = Concurrency(4)
    for moment in (0.0, SETTLING_S / 2):
        concurrency.update(LoopSample(moment, LATE), calls=100, model_share=1.0)
    assert concurrency.limit == 2


def test_a_model_that_does_not_compute_keeps_its_threads():
    """Another model holds the interpreter."""
    assert limits(Concurrency(4), [LATE] * 5, model_share=0.1) == [4] * 5


def test_a_few_calls_keep_their_threads():
    """And when the crowd has gone all threads are back at once."""
    concurrency = Concurrency(4)
    assert limits(concurrency, [LATE] * 5, calls=5) == [4] * 5
    assert limits(concurrency, [LATE, LATE]) == [2, 1]
    assert limits(concurrency, [LATE], began=10.0, calls=5) == [4]


def test_more_is_tried_ever_more_rarely():
    """Until a trial succeeds."""
    concurrency, now, trials = Concurrency(2), 0.0, []
    while now < 500.0:
        # One thread leaves the event loop enough of the interpreter, and two do not.
        before = concurrency.limit
        concurrency.update(LoopSample(now, LATE if before > 1 else IN_TIME), calls=100, model_share=1.0)
        if concurrency.limit > before:
            trials.append(now)
        now += INTERVAL_S
    pauses = [after - trial for trial, after in itertools.pairwise(trials)]
    assert FIRST_TRIAL_S <= trials[0] < 2 * FIRST_TRIAL_S
    assert [round(pause) for pause in pauses] == sorted(round(pause) for pause in pauses)
    assert MAX_TRIAL_S <= max(pauses) < MAX_TRIAL_S + 2
    assert limits(concurrency, [IN_TIME] * 200, began=now)[-1] == 2


def test_a_thread_that_computes_in_python_is_noticed():
    """And one that waits is not."""
    ended = threading.Event()

    def compute():
        while not ended.is_set():
            sum(range(1000))

    async def waited_s(count):
        """How long the event loop waits at the least, of so many sample_event_loop."""
        seen = sample_event_loop()
        try:
            return min([(await anext(seen)).wait_s for _ in range(count)][count // 2 :])
        finally:
            await seen.aclose()

    async def measured():
        alone_s = await waited_s(10)
        thread = threading.Thread(target=compute)
        thread.start()
        try:
            return alone_s, await waited_s(10)
        finally:
            ended.set()
            thread.join()

    alone_s, beside_s = asyncio.run(measured())
    assert beside_s > 3 * alone_s
