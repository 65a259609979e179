"""When a version that could not be served is tried again: after pauses that grow, and at once if it is another version.

Rule of this module: it computes, with the time as an argument.
"""

import random

MAX_PAUSE_S = 3600.0
"""Maximum pause between two attempts with the same version, in seconds. Each attempt fetches the version again."""


class Attempts:
    """Attempts to serve a version of one model."""

    def __init__(self, first_pause_s: float) -> None:
        """Starts without a failure.

        Args:
            first_pause_s: Pause after the first failure, in seconds. Each further failure doubles it.

        """
        self._first_pause_s = first_pause_s
        self._version = ""
        self._pause_s = self._next_at = 0.0

    def may_try(self, version: str, now: float) -> bool:
        """Returns True if a version has not failed last, or its pause is over at a time in seconds."""
        return version != self._version or now >= self._next_at

    def failed(self, version: str, now: float) -> float:
        """Notes a failure, and returns the pause until the next attempt, in seconds."""
        doubled_s = 2 * self._pause_s if version == self._version else self._first_pause_s
        self._version, self._pause_s = version, min(doubled_s, MAX_PAUSE_S)
        pause_s = self._pause_s * random.uniform(0.8, 1.2)  # noqa: S311 - keeps workers from trying at the same time
        self._next_at = now + pause_s
        return pause_s

    def clear(self) -> None:
        """Forgets the failures."""
        self._version, self._pause_s = "", 0.0
