"""Log lines for calls that are refused because of overload, or because their callers are unknown.

Rule of this module: refusals are counted, and one line per second gives their number. A line for each refusal would
cost as much as the refusal itself, at a time of overload or attack.
"""

import asyncio
import logging
from collections import Counter

from mlflow_grpc import logs
from mlflow_grpc.errors import ServingError

INTERVAL_S = 1.0
"""Time between two lines while calls are refused, in seconds."""


class Refusals:
    """Counts refused calls; used from the event loop only."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str, str]] = Counter()
        self._peer = ""

    def count(self, model: str, error: ServingError, peer: str) -> None:
        """Counts a refused call; a line follows within the interval.

        Args:
            model: Name of the called model; empty if it is not known yet.
            error: The error that the caller got. Its message is one of a few.
            peer: Address of the caller; the line has that of the last one.

        """
        if not self._counts:
            asyncio.get_running_loop().call_later(INTERVAL_S, self.write)
        self._counts[model, error.status.value, error.reason, error.message] += 1
        self._peer = peer

    def write(self) -> None:
        """Writes the counts immediately."""
        for (model, status, reason, message), calls in self._counts.items():
            fields = {"model": model, "status": status, "reason": reason, "error": message, "last_peer": self._peer}
            logs.calls.write(logging.WARNING, "refused", {"calls": calls, **fields})
        self._counts.clear()
