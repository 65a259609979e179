"""Limit on concurrent calls of a model: fewer than it has threads while they keep the event loop from its work.

Threads of a model that computes in Python take turns at the interpreter with each other and with the event loop. More
of them answer no more calls, and each makes the event loop wait longer for its turn: 0.3 ms beside one such thread and
0.8 ms beside two or more, several times for each call. Then it can neither answer nor refuse a few hundred calls a
second. A model that waits, or computes outside of the interpreter as numpy does, keeps its threads.

Rule of this module: it measures the event loop and nothing else, and decides by what was measured.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

INTERVAL_S = 0.1
"""Time between two measurements of the event loop, in seconds."""

LEARNING_RATE = 0.2
"""Weight of the latest measurement."""

MAX_WAIT_S = 0.0005
"""Wait of the event loop for the interpreter, in seconds, above which more than one thread computes in Python."""

MIN_MODEL_SHARE = 0.5
"""Processors that the threads of a model use, all together, below which they are not the reason."""

MIN_REQUESTS_PER_THREAD = 2
"""Number of requests for each thread below which the limit does not matter."""

SETTLING_S = 0.5
"""Time until a new limit shows its effect, in seconds."""

FIRST_TRIAL_S, MAX_TRIAL_S = 2.0, 60.0
"""Time until a higher limit is tried, in seconds: at first, and at most. It doubles after each trial that fails."""


@dataclass(frozen=True, slots=True)
class LoopSample:
    """One measurement of the event loop."""

    at: float
    """Time of the measurement, on the clock of `time.monotonic`, in seconds."""
    wait_s: float
    """Moving mean of the event loop's wait for the interpreter, in seconds."""
    cpu_s: float = 0.0
    """Processor time of the event loop's thread so far, in seconds."""


async def sample_event_loop() -> AsyncGenerator[LoopSample]:
    """Measures the event loop again and again, until cancelled."""
    wait_s = 0.0
    while True:
        await asyncio.sleep(INTERVAL_S)
        started_at = time.perf_counter()
        time.sleep(0)  # noqa: ASYNC251 - gives up the interpreter and waits for it, as after each `epoll_wait`
        wait_s += LEARNING_RATE * (time.perf_counter() - started_at - wait_s)
        yield LoopSample(time.monotonic(), wait_s, time.thread_time())


class Concurrency:
    """Limit on the concurrent calls of one model."""

    def __init__(self, size: int) -> None:
        """Starts with the number of threads.

        Args:
            size: Number of threads of the model.

        """
        self.limit = size
        self._size = size
        self._settled_at = self._trial_at = 0.0
        self._trial_s = FIRST_TRIAL_S

    def update(self, sample: LoopSample, *, requests: int, model_share: float) -> None:
        """Adapts the limit.

        Args:
            sample: The latest measurement of the event loop.
            requests: Number of requests in the server.
            model_share: Processors that the model's threads used, all together; 1 is one processor.

        """
        if requests < MIN_REQUESTS_PER_THREAD * self._size:
            self.limit, self._trial_s = self._size, FIRST_TRIAL_S
        elif sample.at < self._settled_at:
            return
        elif sample.wait_s > MAX_WAIT_S:
            if self.limit > 1 and model_share > MIN_MODEL_SHARE:
                self.limit //= 2
                self._settled_at = sample.at + SETTLING_S
                self._trial_at, self._trial_s = sample.at + self._trial_s, min(2 * self._trial_s, MAX_TRIAL_S)
        elif self.limit < self._size and sample.at >= self._trial_at:
            self.limit += 1
            self._settled_at = sample.at + SETTLING_S
