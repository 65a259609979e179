"""When calls arrive, and whether callers have paused.

Rule of this module: it is used from the event loop only.
"""

import asyncio
import time

QUIET_S = 0.1
"""How long no call may have come, in seconds, before the server ends: gRPC hands calls over one by one, and ends those
that it has not handed over with CANCELLED, which no caller sends again."""

MAX_NOISE_S = 2.0
"""How long callers that do not stop calling may hold up the end, in seconds; the closer it is, the shorter a pause of
theirs will do."""


class Arrivals:
    """The time of the last call."""

    def __init__(self) -> None:
        self._last = 0.0

    def note(self, now: float) -> None:
        """A call has arrived, at this time on the clock of `time.monotonic`."""
        self._last = now

    async def wait_until_quiet(self) -> None:
        """Returns when callers pause, so that next to no call is on its way into the server."""
        began = self._last = time.monotonic()
        while True:
            now = time.monotonic()
            enough_s = QUIET_S * (1 - (now - began) / MAX_NOISE_S)
            missing_s = self._last + enough_s - now
            if missing_s <= 0:
                return
            await asyncio.sleep(missing_s)
            woken = time.monotonic()
            if woken - now - missing_s > QUIET_S / 2:
                self._last = woken  # The event loop was busy: that no call was handed over says nothing.
