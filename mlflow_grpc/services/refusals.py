"""The log lines of calls that are refused for want of room.

Rule of this module: they are counted, and a line a second says how many there were. A line for each would cost as much
as the refusal, at a time when the server has the most of them.
"""

import asyncio
import logging
from collections import Counter

from mlflow_grpc import logs

INTERVAL_S = 1.0
"""How often a line is written while calls are refused, in seconds."""


class Refusals:
    """Counts refused calls; used from the event loop only."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def count(self, model: str, reason: str, message: str) -> None:
        """Takes note of a refused call; a line about it is written within the interval."""
        if not self._counts:
            asyncio.get_running_loop().call_later(INTERVAL_S, self.write)
        self._counts[model, reason, message] += 1

    def write(self) -> None:
        """Writes what has been counted, at once."""
        for (model, reason, message), calls in self._counts.items():
            fields = {"model": model, "status": "RESOURCE_EXHAUSTED", "reason": reason, "error": message}
            logs.calls.write(logging.WARNING, "refused", {"calls": calls, **fields})
        self._counts.clear()
