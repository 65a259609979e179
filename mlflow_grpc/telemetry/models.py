"""Metrics of one model: times of its requests, batches, load and refusals.

Rule of this module: a model is identified by its index in the configuration. Its name and version are labels, which are
set when the model is loaded.
"""

import time
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from mlflow_grpc.telemetry.calls import CODES, GO_CODES, MAX_NOTES, GrpcFamilies, GrpcMethod
from mlflow_grpc.telemetry.challengers import CacheMetrics, ShadowMetrics
from mlflow_grpc.telemetry.exposition import Family, Labels, labels
from mlflow_grpc.telemetry.instruments import DURATIONS_S, SIZES, Gauge, Histogram, Instruments
from mlflow_grpc.telemetry.model_families import ModelFamilies

RESULTS = ("ok", "failed")


class Refusal(StrEnum):
    """Reason why a request is refused before the model gets it."""

    LOADING = "loading"
    DRAINING = "draining"
    QUEUE_CALLS = "queue_calls"
    QUEUE_BYTES = "queue_bytes"
    DEADLINE = "deadline"
    OPEN_STREAMS = "open_streams"
    UNREAD_REQUESTS = "unread_requests"
    UNREAD_RESPONSES = "unread_responses"


class Times(Protocol):
    """Times of a request in seconds; 0 for a stage that it did not reach."""

    @property
    def waited_s(self) -> float:
        """Time before decoding."""
        ...

    @property
    def decode_s(self) -> float:
        """Time of decoding."""
        ...

    @property
    def predict_s(self) -> float:
        """Time in the model."""
        ...

    @property
    def encode_s(self) -> float:
        """Time of encoding."""
        ...


@dataclass(frozen=True)
class Totals:
    """Numbers of a model's requests and runs since the server started, summed over the workers.

    A pair has the number of requests that reached a stage, and their time in it together, in seconds.
    """

    answered: int
    failed: int
    waiting: tuple[int, float]
    decoding: tuple[int, float]
    predicting: tuple[int, float]
    encoding: tuple[int, float]
    runs: int
    """How often the model ran; a batch is one run."""
    rows: int
    """Rows that were predicted."""
    last_ended_s: float
    """When a request last ended, in seconds since 1970; 0 if none has."""


class ModelMetrics:
    """Metrics of one model, shown once it has a name."""

    def __init__(self, instruments: Instruments, families: ModelFamilies, grpc: GrpcFamilies, *, rpcs: int) -> None:
        """Reserves positions in memory.

        Args:
            instruments: Makes the instruments.
            families: The families of models.
            grpc: The families of gRPC calls.
            rpcs: Maximum number of typed RPCs of the model.
        """
        self._ended: list[tuple[str, Times]] = []
        self._batches: list[tuple[int, int]] = []
        self._labels: str | None = None
        self._info: str | None = None
        self._state: str | None = None
        self.identity: tuple[str, str] | None = None
        """Name and version; None until they are known."""
        self.typed_rpcs = tuple(GrpcMethod(instruments, grpc) for _ in range(rpcs))
        """Metrics of its typed RPCs."""
        self._requests = {code: instruments.counter() for code in CODES}
        self._refused = {reason: instruments.counter() for reason in Refusal}
        self._loads = {result: instruments.counter() for result in RESULTS}
        self._swaps = {result: instruments.counter() for result in RESULTS}
        self._polls = {result: instruments.counter() for result in RESULTS}
        self._is_tracked = False
        for code, counter in self._requests.items():
            families.requests.add(self._labelled(grpc_code=GO_CODES[code]), counter.total)
        for reason, counter in self._refused.items():
            families.refused.add(self._labelled(reason=reason.value), counter.total)
        for result, counter in self._loads.items():
            families.loads.add(self._labelled(result=result), counter.total)
        for family, counters in ((families.swaps, self._swaps), (families.polls, self._polls)):
            for result, counter in counters.items():
                family.add(self._if_tracked(self._labelled(result=result)), counter.total)

        def gauge(family: Family) -> Gauge:
            return family.add_gauge(self._labelled(), instruments.gauge())

        self.in_flight, self.waiting = gauge(families.in_flight), gauge(families.waiting)
        self.abandoned = gauge(families.abandoned)
        self.threads, self.busy_threads = gauge(families.threads), gauge(families.busy_threads)
        self.ready = gauge(families.ready)
        self._last_ended_s = instruments.gauge()
        self.behind = families.behind.add_gauge(self._if_tracked(self._labelled()), instruments.gauge())
        self._load_s = instruments.gauge()
        families.load_s.add(self._labelled(), self._load_s.maximum)
        families.info.add(lambda: self._info, lambda: 1.0)
        self.shadow = ShadowMetrics(instruments, families, self._labelled)
        """Metrics of a challenger that runs behind the calls of its champion."""
        self.cache = CacheMetrics(instruments, families, self._labelled)
        self._waiting_s, self._decoding_s, self._predicting_s, self._encoding_s = (
            family.add_histogram(self._labelled(), instruments.histogram(DURATIONS_S))
            for family in (families.waiting_s, families.decoding_s, families.predicting_s, families.encoding_s)
        )
        self._batch_calls, self._batch_rows = (
            family.add_histogram(self._labelled(), instruments.histogram(SIZES))
            for family in (families.batch_calls, families.batch_rows)
        )

    def rename(self, name: str, version: str, *, state: str, **info: str) -> None:
        """Sets the labels of the model.

        Args:
            name: Its name, which is unique together with the version.
            version: Its version; empty if it has none.
            state: Its state, `ready` or `failed`.
            info: Further labels of the info series.
        """
        self.identity, self._state = (name, version), state
        self._labels = labels(model=name, version=version)
        self._info = labels(model=name, version=version, state=state, **info)

    def is_named(self, state: str, version: str) -> bool:
        """Returns True if the labels were set for this state and version."""
        return self._state == state and self.identity is not None and self.identity[1] == version

    def track(self) -> None:
        """Shows the series of tracked models."""
        self._is_tracked = True

    def swap_ended(self, result: str) -> None:
        """Counts an attempt to serve another version; the result is one of RESULTS."""
        self._swaps[result].add()

    def poll_ended(self, result: str) -> None:
        """Counts a query of the registry; the result is one of RESULTS."""
        self._polls[result].add()

    def loaded(self, load_s: float) -> None:
        """Counts a load, with its duration in seconds."""
        self._loads["ok"].add()
        self._load_s.set(load_s)

    def load_failed(self) -> None:
        """Counts a load that failed."""
        self._loads["failed"].add()

    def request_ended(self, code: str, times: "Times") -> None:
        """Notes a request that has ended or was abandoned by its caller.

        Args:
            code: Name of its gRPC status.
            times: Its final times.
        """
        self._ended.append((code, times))
        if len(self._ended) >= MAX_NOTES:
            self.count()

    def batch_ended(self, calls: int, rows: int) -> None:
        """Notes a batch that was predicted, by its number of requests and rows."""
        self._batches.append((calls, rows))
        if len(self._batches) >= MAX_NOTES:
            self.count()

    def count(self) -> None:
        """Counts the noted requests, batches and typed RPCs of this model."""
        for method in self.typed_rpcs:
            method.count()
        if self._ended:
            codes, times = zip(*self._ended, strict=True)
            self._ended = []
            self._last_ended_s.set(time.time())
            self._waiting_s.observe(*[ended.waited_s for ended in times])
            self._decoding_s.observe(*[ended.decode_s for ended in times if ended.decode_s])
            self._predicting_s.observe(*[ended.predict_s for ended in times if ended.predict_s])
            self._encoding_s.observe(*[ended.encode_s for ended in times if ended.encode_s])
            for code, requests in Counter(codes).items():
                self._requests[code].add(requests)
        if self._batches:
            calls, rows = zip(*self._batches, strict=True)
            self._batches = []
            self._batch_calls.observe(*calls)
            self._batch_rows.observe(*rows)

    def totals(self) -> Totals:
        """Returns the numbers until now."""
        self.count()
        rows, runs = self._batch_rows.totals(), self._batch_calls.totals()
        answered = int(self._requests["OK"].total())
        return Totals(
            answered=answered,
            failed=int(sum(counter.total() for counter in self._requests.values())) - answered,
            waiting=_count_and_sum(self._waiting_s),
            decoding=_count_and_sum(self._decoding_s),
            predicting=_count_and_sum(self._predicting_s),
            encoding=_count_and_sum(self._encoding_s),
            runs=int(sum(runs[0])),
            rows=int(rows[1]),
            last_ended_s=self._last_ended_s.maximum(),
        )

    def refused(self, reason: Refusal) -> None:
        """Counts a refused request."""
        self._refused[reason].add()

    def _if_tracked(self, series_labels: Labels) -> Labels:
        return lambda: series_labels() if self._is_tracked else None

    def _labelled(self, **more: str) -> Labels:
        suffix = "".join(f",{text}" for text in [labels(**more)] if text)
        return lambda: None if self._labels is None else self._labels + suffix


def _count_and_sum(histogram: Histogram) -> tuple[int, float]:
    counts, total = histogram.totals()
    return int(sum(counts)), total
