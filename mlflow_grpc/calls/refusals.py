"""Log lines for calls that are refused because of overload.

Rule of this module: refusals are counted, and one line per second gives their number. A line for each refusal would
cost as much as the refusal itself, at a time of overload.
"""

import asyncio
import logging
from collections import Counter

from mlflow_grpc import logs

INTERVAL_S = 1.0
"""Time between two lines while calls are refused, in seconds."""


class Refusals:
    """Counts refused calls; used from the event loop only."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def count(self, model: str, reason: str, message: str) -> None:
        """Counts a refused call; a line follows within the interval."""
        if not self._counts:
            asyncio.get_running_loop().call_later(INTERVAL_S, self.write)
        self._counts[model, reason, message] += 1

    def write(self) -> None:
        """Writes the counts immediately."""
        for (model, reason, message), calls in self._counts.items():
            fields = {"model": model, "status": "RESOURCE_EXHAUSTED", "reason": reason, "error": message}
            logs.calls.write(logging.WARNING, "refused", {"calls": calls, **fields})
        self._counts.clear()
