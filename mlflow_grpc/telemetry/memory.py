"""Memory for the metrics of all workers, which the supervisor allocates before it forks them.

Rule of this module: it handles numbers and positions, not their meaning. Each worker writes to its own slot. A number
is written by a single thread, nearly always that of the event loop, so no lock is needed. Every worker can read all
slots, so any worker can answer a scrape for all. A worker starts in the slot of one that has ended and continues its
counters, so a counter never falls, even if a worker is killed. A slot has a region for the server and one for each
model, so the positions of a model do not depend on the other models.
"""

import mmap
from typing import TypeAlias

Values: TypeAlias = "memoryview[float]"
"""Numbers of type float64."""

BASE_GAUGES, GAUGES_PER_MODEL = 64, 32
"""Number of gauges in a slot."""

BASE_COUNTERS, COUNTERS_PER_MODEL = 524_288, 4096
"""Number of counters in a slot, including those of histograms. Memory that is never written is not allocated."""

BYTES = 8
"""Size of a number."""


class Memory:
    """Slots of numbers, one for each worker; shared with processes that are forked later."""

    def __init__(self, *, workers: int = 1, models: int = 1, spare_slots: int = 0) -> None:
        """Allocates zeros.

        Args:
            workers: Number of workers.
            models: Number of models in the configuration, with those that it may get later.
            spare_slots: Number of further slots: for a worker that loads while its predecessor serves, and for the
                supervisor itself.

        """
        self.workers = workers
        self.models = models
        self.slots = workers + spare_slots
        self._gauges = BASE_GAUGES + GAUGES_PER_MODEL * models
        self._size = self._gauges + BASE_COUNTERS + COUNTERS_PER_MODEL * models
        self._values = memoryview(mmap.mmap(-1, self.slots * self._size * BYTES)).cast("d")

    def gauges(self, worker: int) -> Values:
        """Returns the gauges of a worker."""
        start = worker * self._size
        return self._values[start : start + self._gauges]

    def counters(self, worker: int) -> Values:
        """Returns the counters of a worker."""
        start = worker * self._size
        return self._values[start + self._gauges : start + self._size]

    def reset_gauges(self, worker: int) -> None:
        """Sets the gauges of a worker that has ended to zero; its counters stay."""
        gauges = self.gauges(worker)
        gauges[:] = memoryview(bytes(len(gauges) * BYTES)).cast("d")
