"""Metrics of models with a cache, and of challengers that run behind the calls.

Rule of this module: the series are shown only for models that use the feature.
"""

from collections.abc import Callable
from enum import StrEnum

from mlflow_grpc.telemetry.exposition import Labels
from mlflow_grpc.telemetry.instruments import Instruments
from mlflow_grpc.telemetry.model_families import ModelFamilies

DIFFERENCES = (
    *(0.0, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 0.001, 0.003, 0.01, 0.03),
    *(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1e3, 1e4, 1e5, 1e6),
)
"""Upper bounds of the buckets of the differences of two predictions, in the unit of the model."""


class Outcome(StrEnum):
    """What became of a call that a challenger was to run behind."""

    AGREED = "agreed"
    DIFFERED = "differed"
    FAILED = "failed"
    """The challenger raised, or did not answer in time."""
    DROPPED = "dropped"
    """The challenger did not run, because it was busy, was being replaced, or had too little processor time."""


class ShadowMetrics:
    """Metrics of a challenger that runs behind the calls of its champion."""

    def __init__(self, instruments: Instruments, families: ModelFamilies, labelled: Callable[..., Labels]) -> None:
        """Reserves positions in memory.

        Args:
            instruments: Makes the instruments.
            families: The families of models.
            labelled: Returns the labels of the challenger with further ones.

        """
        self._is_shown = False
        self._outcomes = {outcome: instruments.counter() for outcome in Outcome}
        for outcome, counter in self._outcomes.items():
            families.shadow_calls.add(self._if_shown(labelled(result=outcome.value)), counter.total)
        self._difference = families.shadow_difference.add_histogram(
            self._if_shown(labelled()), instruments.histogram(DIFFERENCES)
        )

    def show(self) -> None:
        """Shows the series."""
        self._is_shown = True

    def count(self, outcome: Outcome, difference: float | None = None) -> None:
        """Counts a call.

        Args:
            outcome: What became of it.
            difference: Largest difference of two numbers; None if there are none. One that is not finite is left out.

        """
        self._outcomes[outcome].add()
        if difference is not None and difference < float("inf"):
            self._difference.observe(difference)

    def _if_shown(self, series_labels: Labels) -> Labels:
        return lambda: series_labels() if self._is_shown else None


class CacheMetrics:
    """Metrics of a cache of answers."""

    def __init__(self, instruments: Instruments, families: ModelFamilies, labelled: Callable[..., Labels]) -> None:
        """Reserves positions in memory; takes the arguments of ShadowMetrics."""
        self._is_shown = False
        self.hits, self.misses = instruments.counter(), instruments.counter()
        for result, counter in (("hit", self.hits), ("miss", self.misses)):
            families.cache_requests.add(self._if_shown(labelled(result=result)), counter.total)
        gauge = instruments.gauge()
        self.rows = families.cache_rows.add_gauge(self._if_shown(labelled()), gauge)
        """Rows in the cache."""

    def show(self) -> None:
        """Shows the series."""
        self._is_shown = True

    def _if_shown(self, series_labels: Labels) -> Labels:
        return lambda: series_labels() if self._is_shown else None
