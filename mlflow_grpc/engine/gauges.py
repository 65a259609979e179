"""Gauges of the server and its models, and models' names as labels, read at intervals at no cost to calls.

Rule of this module: it copies the state of the engine into the metrics, and changes nothing else. Used from the event
loop only.
"""

import asyncio
import time
from collections.abc import Callable

from mlflow_grpc.daemon_threads import in_daemon_thread
from mlflow_grpc.engine.catalog import Catalog, Entry, State
from mlflow_grpc.engine.concurrency import INTERVAL_S, LoopSample
from mlflow_grpc.naming import without_secrets
from mlflow_grpc.telemetry.instruments import Gauge
from mlflow_grpc.telemetry.metrics import Metrics
from mlflow_grpc.telemetry.models import ModelMetrics

PROCESS_INTERVAL_S = 5.0
"""Interval between two readings of the CPU time and memory of the process, in seconds."""


class Gauges:
    """Gauges of one server."""

    def __init__(self, metrics: Metrics, catalog: Catalog, is_serving: Callable[[], bool]) -> None:
        """Reads nothing yet.

        Args:
            metrics: The metrics with the gauges.
            catalog: The models.
            is_serving: Returns the server's health.
        """
        self.metrics = metrics
        self._catalog = catalog
        self._is_serving = is_serving
        self._sampled_at = time.monotonic()
        self._certificate: tuple[Gauge, Callable[[], float]] | None = None

    def add_certificate(self, expires_at: Callable[[], float]) -> None:
        """Adds the gauge of the TLS certificate.

        Args:
            expires_at: Returns the time at which the certificate in use expires, in seconds since 1970.

        """
        self._certificate = self.metrics.certificate_expiry(), expires_at

    def note(self, sample: LoopSample, utilization: float) -> None:
        """Counts a measurement of the event loop, and sets the gauges for scrapes that other workers answer."""
        self.metrics.utilization.set(utilization)
        self.metrics.event_loop_delay_s.observe(max(0.0, sample.at - self._sampled_at - INTERVAL_S))
        self._sampled_at = sample.at
        if self.metrics.slots > 1:
            self.metrics.count()
            self.refresh()

    def refresh(self) -> None:
        """Sets the gauges of the server and of all models to their current values."""
        self.metrics.serving.set(self._is_serving())
        if self._certificate is not None:
            gauge, expires_at = self._certificate
            gauge.set(expires_at())
        states = [entry.state for entry in self._catalog.entries]
        for state in State:
            self.metrics.models_by_state[state.value].set(states.count(state))
        for entry in self._catalog.entries:
            if (model := entry.engine.metrics) is not None:
                self._name(model, entry)
                _refresh_model(model, entry)

    async def refresh_all(self) -> None:
        """Sets all gauges; those of the process are read in a thread."""
        self.refresh()
        await in_daemon_thread(self.metrics.process.refresh, "process-metrics")

    async def watch_process(self) -> None:
        """Reads the metrics of the process, for scrapes that another worker answers; runs until cancelled."""
        while True:
            await in_daemon_thread(self.metrics.process.refresh, "process-metrics")
            await asyncio.sleep(PROCESS_INTERVAL_S)

    def _name(self, model: ModelMetrics, entry: Entry) -> None:
        """Names a model in a final state; before that, its name and version may be unknown."""
        if entry.state is State.LOADING or model.is_named(entry.state.value, entry.version):
            return
        taken = {other.identity for other in self.metrics.models if other is not model}
        name, number = entry.name, 1
        while (name, entry.version) in taken:  # Two failed models may have the same name.
            number += 1
            name = f"{entry.name}-{number}"
        loaded = entry.loaded
        model.rename(
            name,
            entry.version,
            state=entry.state.value,
            uri=without_secrets(entry.config.source),
            flavors=" ".join(loaded.model.info.flavors) if loaded is not None else "",
            batched=str(loaded is not None and loaded.batched).lower(),
        )


def _refresh_model(model: ModelMetrics, entry: Entry) -> None:
    engine = entry.engine
    model.in_flight.set(engine.admission.admitted_requests)
    model.waiting.set(engine.waiting_requests)
    model.abandoned.set(engine.threads.abandoned_running)
    model.busy_threads.set(engine.threads.busy)
    model.threads.set(engine.threads.concurrency)
    model.ready.set(entry.state is State.READY)
