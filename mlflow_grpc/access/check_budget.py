"""The time that checks of JWTs that turn out to be invalid may take.

A signature costs about as much as the refusal itself, and a forged JWT with a new signature is in no memory. So a flood
of them would take the event loop away from callers whose JWTs are valid.

Rule of this module: it counts time, and knows nothing of JWTs.
"""

import time
from collections.abc import Callable

SHARE = 0.05
"""Share of one processor that the checks may take: some 250 to 500 of them a second."""

SAVED_S = 0.2
"""Maximum time that is saved up while there are none, in seconds: a few invalid JWTs at a time are always checked."""


class CheckBudget:
    """Time for checks that bring nothing; used from one thread."""

    def __init__(self, now: Callable[[], float] = time.monotonic, used: Callable[[], float] = time.thread_time) -> None:
        """Starts with the time that can be saved up.

        Args:
            now: Returns the time in seconds.
            used: Returns the processor time of this thread in seconds.

        """
        self._now, self.used = now, used
        self._left_s, self._filled_at = SAVED_S, now()

    @property
    def is_spent(self) -> bool:
        """True if no more such checks should be made now."""
        now = self._now()
        self._left_s = min(SAVED_S, self._left_s + SHARE * (now - self._filled_at))
        self._filled_at = now
        return self._left_s <= 0

    def spend(self, began: float) -> None:
        """Takes the time since a moment that `used` returned out of the budget."""
        self._left_s -= self.used() - began
