"""How fast a model answers while calls wait for it.

Rule of this module: it is told what happens and when, and keeps no clock.

Only the time counts in which more calls are in than run at once: of a model that is not busy, the rate says how often
it is called and not how fast it is. A model that predicts waiting calls together gets faster with more of them: its
rate with a short queue says little of a long one.
"""

MEMORY_S = 2.0
"""After how long what was seen counts for about a third, in seconds."""

MIN_ANSWERS = 16
"""With fewer answers in memory the rate is not known."""

MAX_GROWTH = 2.0
"""How many times as long a queue may be as those that the rate was seen with, if the model predicts calls together."""


class Throughput:
    """The rate at which waiting calls are answered, lately."""

    def __init__(self) -> None:
        self.is_batched = False
        """Whether the model predicts waiting calls together."""
        self._answers = 0.0
        self._busy_s = 0.0
        self._waiting_s = 0.0  # The sum of the times that calls have been in.

    def passed(self, seconds: float, calls: int, *, answered: bool = False) -> None:
        """Time has passed in which more calls were in than run at once.

        Args:
            seconds: How much.
            calls: How many calls were in.
            answered: Whether one of them has been answered at its end.

        """
        kept = MEMORY_S / (MEMORY_S + seconds)  # In small steps the same as exp(-seconds / MEMORY_S), and cheaper.
        self._answers = self._answers * kept + answered
        self._busy_s = self._busy_s * kept + seconds
        self._waiting_s = self._waiting_s * kept + seconds * calls

    def wait_s(self, calls: int) -> float | None:
        """How long so many calls take, in seconds; None if it is not known."""
        if self._answers < MIN_ANSWERS:
            return None
        if self.is_batched and calls * self._busy_s > MAX_GROWTH * self._waiting_s:
            return None
        return calls * self._busy_s / self._answers
