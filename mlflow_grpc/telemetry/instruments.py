"""Counters, gauges and histograms in the memory of the workers.

Rule of this module: recording adds to numbers at fixed positions, without allocations or lookups by text, whatever
callers send. Reading sums over the workers.
"""

from bisect import bisect_left

from mlflow_grpc.telemetry.memory import (
    BASE_COUNTERS,
    BASE_GAUGES,
    COUNTERS_PER_MODEL,
    GAUGES_PER_MODEL,
    Memory,
    Values,
)

DURATIONS_S = (
    *(0.0001, 0.0002, 0.0003, 0.0004, 0.0005, 0.0006, 0.0007, 0.0008, 0.0009),
    *(0.001, 0.00125, 0.0015, 0.002, 0.0025, 0.003, 0.004, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0),
)
"""Upper bounds of the buckets of durations, in seconds. Many models answer within a millisecond, so the bounds in that
range are 0.1 ms apart. Prometheus' default bounds start at 5 ms."""

SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0, 65536.0)
"""Upper bounds of the buckets of the numbers of calls and rows in a batch."""


class Counter:
    """A number that never falls."""

    __slots__ = ("_index", "_own", "_slots")

    def __init__(self, own: Values, slots: list[Values], index: int) -> None:
        self._own, self._slots, self._index = own, slots, index

    def add(self, amount: float = 1.0) -> None:
        """Adds to the number."""
        self._own[self._index] += amount

    def total(self) -> float:
        """Returns the sum over all workers."""
        return sum(values[self._index] for values in self._slots)

    def by_worker(self) -> list[float]:
        """Returns the number of each worker."""
        return [values[self._index] for values in self._slots]


class Gauge(Counter):
    """A number that rises and falls."""

    __slots__ = ()

    def set(self, value: float) -> None:
        """Sets the number."""
        self._own[self._index] = value

    def maximum(self) -> float:
        """Returns the highest number of all workers."""
        return max(self.by_worker())


class Histogram:
    """Counts of values in buckets, and the sum of the values."""

    __slots__ = ("_own", "_slots", "_start", "_sum", "bounds")

    def __init__(self, own: Values, slots: list[Values], start: int, bounds: tuple[float, ...]) -> None:
        """Counts from zero.

        Args:
            own: Counters of this worker.
            slots: Counters of all workers.
            start: Position of the first bucket.
            bounds: Upper bounds of the buckets, in ascending order. A bucket includes its bound.

        """
        self._own, self._slots, self._start, self.bounds = own, slots, start, bounds
        self._sum = start + len(bounds) + 1

    @staticmethod
    def size(bounds: tuple[float, ...]) -> int:
        """Returns the number of counters of a histogram: its buckets, the bucket without a bound, and the sum."""
        return len(bounds) + 2

    def observe(self, *values: float) -> None:
        """Counts values."""
        own, start, bounds = self._own, self._start, self.bounds
        for value in values:
            own[start + bisect_left(bounds, value)] += 1.0
        own[self._sum] += sum(values)

    def totals(self) -> tuple[list[float], float]:
        """Returns the counts of all buckets and the sum of the values, summed over all workers."""
        columns: list[list[float]] = [list(values[self._start : self._sum + 1]) for values in self._slots]
        numbers = columns[0] if len(columns) == 1 else [sum(of_workers) for of_workers in zip(*columns, strict=True)]
        return numbers[:-1], numbers[-1]


class Instruments:
    """Assigns positions in memory to instruments, in the order of their creation.

    The order is the same in all workers, so each worker can read the numbers of the others.
    """

    def __init__(self, memory: Memory, worker: int, model: int | None = None) -> None:
        """Starts at the first positions of a region.

        Args:
            memory: The memory of all workers.
            worker: Number of this worker.
            model: Number of the model whose region it is; None for that of the server.

        """
        numbers = range(memory.slots)
        self._gauges = [memory.gauges(number) for number in numbers]
        self._counters = [memory.counters(number) for number in numbers]
        self._worker = worker
        self._gauge_count = 0 if model is None else BASE_GAUGES + GAUGES_PER_MODEL * model
        self._counter_count = 0 if model is None else BASE_COUNTERS + COUNTERS_PER_MODEL * model
        self._gauge_end = self._gauge_count + (BASE_GAUGES if model is None else GAUGES_PER_MODEL)
        self._counter_end = self._counter_count + (BASE_COUNTERS if model is None else COUNTERS_PER_MODEL)
        _within(self._counter_end, len(self._counters[0]))

    def counter(self) -> Counter:
        """Makes a counter."""
        return Counter(self._counters[self._worker], self._counters, self._reserve_counters(1))

    def gauge(self) -> Gauge:
        """Makes a gauge."""
        index = self._gauge_count
        self._gauge_count = _within(index + 1, self._gauge_end)
        return Gauge(self._gauges[self._worker], self._gauges, index)

    def histogram(self, bounds: tuple[float, ...]) -> Histogram:
        """Makes a histogram with these upper bounds."""
        start = self._reserve_counters(Histogram.size(bounds))
        return Histogram(self._counters[self._worker], self._counters, start, bounds)

    def _reserve_counters(self, count: int) -> int:
        start = self._counter_count
        self._counter_count = _within(start + count, self._counter_end)
        return start


def _within(end: int, limit: int) -> int:
    if end > limit:
        raise RuntimeError(f"{end} positions exceed the {limit} of mlflow_grpc.telemetry.memory")
    return end
