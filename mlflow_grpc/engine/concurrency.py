"""How many calls of a model run at a time: fewer than there are threads while they keep the event loop from its work.

Threads of a model that computes in Python take turns at the interpreter with each other and with the event loop. More
of them answer no more calls, and each makes the event loop wait longer for its turn: 0.6 ms beside one such thread,
3 ms beside two and 6 ms beside four, several times for each call. Beside four it can neither answer nor refuse a few
hundred calls a second. A model that waits, or computes outside of the interpreter as numpy does, keeps its threads.

Rule of this module: it decides by what was measured, and measures nothing but the event loop.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

INTERVAL_S = 0.1
"""How often the event loop is looked at, in seconds."""

LEARN = 0.2
"""The weight of the last look."""

MAX_WAIT_S = 0.0015
"""If the event loop waits longer than this for the interpreter, in seconds, more than one thread computes in it."""

MIN_MODEL_SHARE = 0.5
"""The threads of a model that compute for a smaller share of the time, all together, are not those."""

MIN_CROWD = 2
"""With fewer calls in than this many times the number of threads the limit does not matter."""

SETTLING_S = 0.5
"""How long a new limit takes to show, in seconds."""

FIRST_TRIAL_S, MAX_TRIAL_S = 2.0, 60.0
"""After how long one more call at a time is tried, in seconds; twice as long after each trial that fails."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of the event loop."""

    at: float
    """When, on the clock of `time.monotonic`, in seconds."""
    wait_s: float
    """How long it waits for the interpreter lately, in seconds."""


async def looks() -> AsyncGenerator[Look]:
    """Looks at the event loop from time to time; endless."""
    wait_s = 0.0
    while True:
        await asyncio.sleep(INTERVAL_S)
        began = time.perf_counter()
        time.sleep(0)  # noqa: ASYNC251 - gives up the interpreter and waits for it, as after each `epoll_wait`
        wait_s += LEARN * (time.perf_counter() - began - wait_s)
        yield Look(time.monotonic(), wait_s)


class Concurrency:
    """The limit of one model."""

    def __init__(self, size: int) -> None:
        """Args:
        size: How many threads the model has.
        """
        self.limit = size
        self._size = size
        self._settled_at = self._trial_at = 0.0
        self._trial_s = FIRST_TRIAL_S

    def update(self, look: Look, *, calls: int, model_share: float) -> None:
        """Sets the limit by what was measured.

        Args:
            look: What was seen of the event loop.
            calls: How many calls are in.
            model_share: For what share of the time the model's threads computed, all together; 1 is one processor.

        """
        if calls < MIN_CROWD * self._size:
            self.limit, self._trial_s = self._size, FIRST_TRIAL_S
        elif look.at < self._settled_at:
            return
        elif look.wait_s > MAX_WAIT_S:
            if self.limit > 1 and model_share > MIN_MODEL_SHARE:
                self.limit //= 2
                self._settled_at = look.at + SETTLING_S
                self._trial_at, self._trial_s = look.at + self._trial_s, min(2 * self._trial_s, MAX_TRIAL_S)
        elif self.limit < self._size and look.at >= self._trial_at:
            self.limit += 1
            self._settled_at = look.at + SETTLING_S
