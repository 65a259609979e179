"""Forecast of arriving calls: how many the next batch can expect, and how long it should wait for them.

A call that is alone starts at once. Where several calls are open at a time, a batch waits until as many are queued as
were open lately, or until no more arrive for a moment.

Rule of this module: arithmetic on counts and times. It starts nothing, and is used from the event loop only.
"""

from typing import Protocol

BATCH_IDLE_S, BATCH_IDLE_SHARE = 0.001, 0.25
"""Pause between arrivals after which an incomplete batch starts: in seconds, and as a share of the model's duration."""

BATCH_MAX_HOLD_S, BATCH_MAX_HOLD_TIMES = 0.02, 2.0
"""Maximum time that a call is held back while nothing runs: in seconds, and in multiples of the model's duration."""

LEARNING_RATE = 0.2
"""Weight of the latest batch in the expected number of calls."""


class LoadView(Protocol):
    """Numbers of calls to a model that are in the server."""

    @property
    def open_calls(self) -> int:
        """Calls that have arrived, read or not."""
        ...

    @property
    def admitted_requests(self) -> int:
        """Open calls whose request has been read and admitted."""
        ...


class ArrivalForecast:
    """Expected number of calls for the next batch, from the calls that were open lately."""

    def __init__(self, load: LoadView, *, max_wait_s: float) -> None:
        """Starts with the expectation of one call.

        Args:
            load: Current numbers of calls.
            max_wait_s: Maximum time that a call waits for its batch, in seconds.

        """
        self._load = load
        self._max_wait_s = max_wait_s
        self._peak = 0  # Of open calls since the last batch.
        self._expected = 1.0
        self._stalled = 0  # Calls that were arriving when waiting for them was given up.
        self._last_arrival = 0.0

    @property
    def arriving(self) -> int:
        """Number of open calls that are not admitted yet, without the stalled ones."""
        arriving = self._load.open_calls - self._load.admitted_requests
        self._stalled = min(self._stalled, arriving)
        return arriving - self._stalled

    def note_arrival(self, now: float) -> None:
        """Notes that a call has been queued."""
        self._last_arrival = now
        self._peak = max(self._peak, self._load.open_calls)

    def note_delay(self, now: float) -> None:
        """Notes that the event loop was busy: calls that came meanwhile are not queued yet."""
        self._last_arrival = now

    def note_batch(self) -> None:
        """Notes that a batch starts, and learns from the calls that were open before it."""
        self._expected = max(float(self._peak), (1 - LEARNING_RATE) * self._expected + LEARNING_RATE * self._peak)
        self._peak = self._load.open_calls

    def is_complete(self, queued: int, max_rows: int) -> bool:
        """Returns True if no further calls are worth waiting for."""
        return queued >= min(max_rows, int(self._expected))

    def wait_s(self, now: float, *, queued_at: float, predict_s: float) -> float:
        """Returns how long an incomplete batch should wait, in seconds; 0 or less to start it now.

        Args:
            now: On the clock of `time.monotonic`, in seconds.
            queued_at: When its first call was queued, on the same clock.
            predict_s: Mean duration of the model's batches, in seconds.

        """
        waited_s = now - queued_at
        idle_s = max(BATCH_IDLE_S, BATCH_IDLE_SHARE * predict_s)
        hold_s = min(max(BATCH_MAX_HOLD_S, BATCH_MAX_HOLD_TIMES * predict_s), self._max_wait_s)
        if waited_s >= hold_s:
            self._stalled = self._load.open_calls - self._load.admitted_requests
            return 0.0
        if self.arriving:
            return min(idle_s, hold_s - waited_s)
        return min(idle_s - (now - self._last_arrival), hold_s - waited_s)
