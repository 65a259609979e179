"""Times of arriving calls, and the pause before the server stops.

Rule of this module: it is used from the event loop only.
"""

import asyncio
import time

DRAIN_IDLE_S = 0.1
"""Time without a new call before the server stops, in seconds. gRPC hands over calls one at a time and cancels those
still queued; clients do not retry CANCELLED."""

DRAIN_IDLE_LIMIT_S = 2.0
"""Maximum time that callers who do not pause can delay the stop, in seconds. The required pause shrinks toward this
limit."""


class Arrivals:
    """Time of the latest call."""

    def __init__(self) -> None:
        self._last = 0.0

    def note(self, now: float) -> None:
        """Notes a call that arrived at this time, on the clock of `time.monotonic`."""
        self._last = now

    async def wait_until_idle(self) -> None:
        """Returns once callers pause, so that hardly any call is still on its way to the server."""
        started_at = self._last = time.monotonic()
        while True:
            now = time.monotonic()
            needed_s = DRAIN_IDLE_S * (1 - (now - started_at) / DRAIN_IDLE_LIMIT_S)
            missing_s = self._last + needed_s - now
            if missing_s <= 0:
                return
            await asyncio.sleep(missing_s)
            woken = time.monotonic()
            if woken - now - missing_s > DRAIN_IDLE_S / 2:
                self._last = woken  # The event loop was busy, so calls may be waiting in gRPC.
