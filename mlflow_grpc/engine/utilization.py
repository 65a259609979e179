"""Utilization of a server: the share of time for which it was busy.

Load balancers and autoscalers need one number that rises with the load until nothing more can be answered. The number
of calls in flight does not do: that of a fast model is near zero between two bursts.

Rule of this module: it computes the number from what the engine counts. Used from the event loop only.
"""

from collections import deque

from mlflow_grpc.engine.catalog import Catalog
from mlflow_grpc.engine.concurrency import INTERVAL_S, LoopSample
from mlflow_grpc.engine.thread_pool import ModelThreadPool

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
        self._samples: deque[tuple[LoopSample, dict[ModelThreadPool, float]]] = deque(maxlen=_SAMPLES + 1)

    def note(self, sample: LoopSample) -> None:
        """Adds a measurement of the event loop, and reads how long the models' threads have been busy."""
        pools = [entry.engine.threads for entry in self._catalog.entries if not entry.is_shadow]
        self._samples.append((sample, {pool: pool.busy_s for pool in pools}))
        (first, busy_before_s), (last, busy_s) = self._samples[0], self._samples[-1]
        if last.at > first.at:
            # The threads of a model that has replaced another one since then began at 0.
            shares_s = [(busy_s[pool] - busy_before_s.get(pool, 0.0)) / pool.concurrency for pool in pools]
            busiest_s = max(last.cpu_s - first.cpu_s, *shares_s, 0.0)
            self.value = min(busiest_s / (last.at - first.at), 1.0)
