"""Utilization of a server: the share of time for which it was busy.

Load balancers and autoscalers need one number that rises with the load until nothing more can be answered. The number
of calls in flight does not do: that of a fast model is near zero between two bursts.

Rule of this module: it computes the number from what the engine counts. Used from the event loop only.
"""

from collections import deque

from mlflow_grpc.engine.catalog import Catalog
from mlflow_grpc.engine.concurrency import INTERVAL_S, LoopSample

WINDOW_S = 1.0
"""Time over which the utilization is a mean, in seconds."""

_SAMPLES = round(WINDOW_S / INTERVAL_S)


class Utilization:
    """Utilization of one server, between 0 and 1.

    It is that of the busiest part: the event loop, by the processor time of its thread, or the threads of one model, by
    the time for which they run a function. A model that waits for another server is as busy as one that computes.
    """

    def __init__(self, catalog: Catalog) -> None:
        """Starts at 0.

        Args:
            catalog: The models.

        """
        self.value = 0.0
        """Mean over the last second."""
        self._catalog = catalog
        self._samples: deque[tuple[float, ...]] = deque(maxlen=_SAMPLES + 1)

    def note(self, sample: LoopSample) -> None:
        """Adds a measurement of the event loop, and reads how long the models' threads have been busy."""
        pools = [entry.engine.threads for entry in self._catalog.entries if not entry.is_shadow]
        self._samples.append((sample.at, sample.cpu_s, *(pool.busy_s for pool in pools)))
        (first_at, *first_s), (last_at, *last_s) = self._samples[0], self._samples[-1]
        if last_at > first_at:
            sizes = (1, *(pool.concurrency for pool in pools))
            busiest_s = max((now - then) / size for now, then, size in zip(last_s, first_s, sizes, strict=True))
            self.value = min(busiest_s / (last_at - first_at), 1.0)
