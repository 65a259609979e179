"""Throughput of a model while calls wait for it.

Rule of this module: the caller passes events and durations; there is no clock here.

Only time in which more calls are admitted than run at once counts. While a model is not busy, its rate shows how often
it is called, not how fast it is. A batched model gets faster with more calls, so a rate that was measured with a short
queue says little about a long one.
"""

MEMORY_S = 2.0
"""Time after which a measurement counts for about a third, in seconds."""

MIN_ANSWERS = 16
"""Minimum number of answers in memory for the rate to be known."""

MAX_GROWTH = 2.0
"""Maximum length of a batched model's queue, in multiples of the queues that its rate was measured with."""


class Throughput:
    """Recent rate at which waiting calls are answered."""

    def __init__(self) -> None:
        self.is_batched = False
        """True if the model predicts waiting calls together."""
        self._answers = 0.0
        self._busy_s = 0.0
        self._call_s = 0.0  # Sum of the times that calls have been admitted.

    def passed(self, seconds: float, calls: int, *, answered: bool = False) -> None:
        """Adds a time span in which more calls were admitted than run at once.

        Args:
            seconds: Length of the time span.
            calls: Number of admitted calls.
            answered: True if one of them was answered at the end of the time span.

        """
        kept = MEMORY_S / (MEMORY_S + seconds)  # In small steps the same as exp(-seconds / MEMORY_S), and cheaper.
        self._answers = self._answers * kept + answered
        self._busy_s = self._busy_s * kept + seconds
        self._call_s = self._call_s * kept + seconds * calls

    def wait_s(self, calls: int) -> float | None:
        """Estimated time to answer that many calls, in seconds; None if unknown."""
        if self._answers < MIN_ANSWERS:
            return None
        if self.is_batched and calls * self._busy_s > MAX_GROWTH * self._call_s:
            return None
        return calls * self._busy_s / self._answers
