"""All metrics of a server, and their text for a scrape.

Rule of this module: it combines the families. The event loop writes the text in slices of SLICE_S, so that calls
continue in between. A thread would hold the interpreter for 0.5 ms each time that the event loop or a model's thread
needs it, which is several times per call.
"""

import asyncio
import functools
import platform
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version

from mlflow_grpc.telemetry.calls import UNKNOWN, GrpcFamilies, GrpcMethod, HttpRoute
from mlflow_grpc.telemetry.configuration_metrics import ConfigurationMetrics
from mlflow_grpc.telemetry.exposition import Family, Kind, labels
from mlflow_grpc.telemetry.instruments import DURATIONS_S, Gauge, Instruments
from mlflow_grpc.telemetry.memory import Memory
from mlflow_grpc.telemetry.model_families import ModelFamilies
from mlflow_grpc.telemetry.models import ModelMetrics
from mlflow_grpc.telemetry.process_metrics import ProcessMetrics

SLICE_S, PAUSE_S = 0.0002, 0.001
"""Time for which the event loop writes metrics, and the pause for calls after it, in seconds. A call needs several
turns of the event loop and of a thread; without pauses a scrape would delay each turn."""


@dataclass(frozen=True)
class MetricsSlot:
    """A worker's slot in the metrics of the server."""

    worker: int = 0
    """Number of the worker."""
    memory: Memory | None = None
    """Memory of all workers; None if there is only this process."""
    models: tuple[int, ...] | None = None
    """Number of each model's region in the memory; None for the order of the configuration."""
    is_file_watched: bool = False
    """True if the configuration file is watched, so that its metrics are shown."""

    def metrics(self, models: int) -> "Metrics":
        """Returns the metrics of a server with a number of models."""
        regions = self.models or tuple(range(models))
        memory = self.memory or Memory(models=models)
        return Metrics(memory, self.worker, regions, is_file_watched=self.is_file_watched)


ALONE = MetricsSlot()
"""The slot of a single-process server."""


class Metrics:
    """The metrics of one server; used from its event loop only."""

    def __init__(
        self,
        memory: Memory,
        worker: int = 0,
        regions: tuple[int, ...] | None = None,
        *,
        is_file_watched: bool = False,
    ) -> None:
        """Starts without methods, routes and models.

        Args:
            memory: The memory of all workers.
            worker: Number of this worker.
            regions: Number of each model's region in the memory; by default in their order.
            is_file_watched: True if the configuration file is watched.

        """
        self.slots = memory.slots
        self._memory, self._worker = memory, worker
        self._regions = iter(range(memory.models) if regions is None else regions)
        self._instruments = instruments = Instruments(memory, worker)
        file_metrics = ConfigurationMetrics(instruments)  # First, as in the supervisor, which sets them.
        self._grpc = GrpcFamilies()
        self._methods: dict[str, GrpcMethod] = {}
        self._models = ModelFamilies()
        self.models: list[ModelMetrics] = []
        """Metrics of the models, in the order of the configuration."""
        self._http_seconds = Family(
            "http_server_request_duration_seconds",
            Kind.HISTOGRAM,
            "Duration of HTTP requests, from their headers to the end of the response, in seconds.",
        )
        self.process = ProcessMetrics(instruments, memory.slots)
        build = Family("mlflow_grpc_build", Kind.INFO, "Versions of the server, of MLflow and of Python.")
        build.add(_versions(), lambda: 1.0)
        workers = Family("mlflow_grpc_workers", Kind.GAUGE, "Configured number of workers.")
        workers.add("", lambda: float(memory.workers))
        serving = Family("mlflow_grpc_serving", Kind.GAUGE, "Workers whose health is SERVING.")
        self.serving = serving.add_gauge("", instruments.gauge())
        utilization = Family(
            "mlflow_grpc_utilization",
            Kind.GAUGE,
            "Share of the last second for which the event loop or the threads of a model were busy, whichever is "
            "higher: from 0 to 1, as a mean of the workers.",
        )
        self.utilization = instruments.gauge()
        utilization.add("", lambda: self.utilization.total() / memory.workers)
        states = Family("mlflow_grpc_models", Kind.GAUGE, "Models by their state, summed over the workers.")
        self.models_by_state = {
            state: states.add_gauge(labels(state=state), instruments.gauge())
            for state in ("loading", "ready", "failed")
        }
        delay = Family(
            "mlflow_grpc_event_loop_delay_seconds",
            Kind.HISTOGRAM,
            "Delay of the event loop, measured ten times a second, in seconds; it delays every call several times.",
        )
        self.event_loop_delay_s = delay.add_histogram("", instruments.histogram(DURATIONS_S))
        active = Family("http_server_active_requests", Kind.GAUGE, "HTTP requests that have no response yet.")
        self.http_active = active.add_gauge("", instruments.gauge())
        self.families = [
            *(build, workers, serving, utilization, states, *self._models.all),
            *(*self._grpc.all, self._http_seconds, active, delay, *self.process.families),
            *(file_metrics.families if is_file_watched else ()),
        ]
        """All families, in the order of the output."""

    def grpc_method(self, path: str) -> GrpcMethod:
        """Returns the metrics of a method of the server, by its path on the wire.

        The method is shown as unary until its handler renames it (`GrpcMethod.rename`).
        """
        if path not in self._methods:
            self._methods[path] = method = GrpcMethod(self._instruments, self._grpc)
            method.rename(path, client_streaming=False, server_streaming=False)
        return self._methods[path]

    def unknown_method(self) -> GrpcMethod:
        """Returns the metrics shared by all methods that the server does not have."""
        return self.grpc_method(f"/{UNKNOWN}/{UNKNOWN}")

    def http_route(self, route: str, methods: tuple[str, ...] = ()) -> HttpRoute:
        """Returns the metrics of a route.

        Args:
            route: Template of its path; empty for all paths that the server does not have.
            methods: HTTP methods of the route.
        """
        return HttpRoute(self._instruments, self._http_seconds, route, methods)

    def add_model(self, *, rpcs: int) -> ModelMetrics:
        """Returns the metrics of the next model in the configuration, with a maximum number of typed RPCs."""
        instruments = Instruments(self._memory, self._worker, next(self._regions))
        model = ModelMetrics(instruments, self._models, self._grpc, rpcs=rpcs)
        self.models.append(model)
        return model

    def certificate_expiry(self) -> Gauge:
        """Adds the gauge of the TLS certificate's expiry, and returns this worker's; the earliest one is shown."""
        family = Family(
            "mlflow_grpc_tls_certificate_not_after_timestamp_seconds",
            Kind.GAUGE,
            "Time at which the TLS certificate in use expires, in seconds since 1970; the earliest of the workers.",
        )
        gauge = self._instruments.gauge()
        family.add("", lambda: min(filter(None, gauge.by_worker()), default=0.0))
        self.families.append(family)
        return gauge

    def refused_callers(self, reasons: Iterable[str]) -> Callable[[str], None]:
        """Adds a counter of calls whose callers are unknown or may not call, and returns what counts one.

        Args:
            reasons: All reasons of such refusals.

        """
        family = Family(
            "mlflow_grpc_refused_callers", Kind.COUNTER, "Calls whose caller was unknown or not permitted, by reason."
        )
        counters = {reason: self._instruments.counter() for reason in reasons}
        for reason, counter in counters.items():
            family.add(labels(reason=reason), counter.total)
        self.families.append(family)
        return lambda reason: counters[reason].add()

    def recorded_calls(self, results: Iterable[str]) -> Callable[[str, int], None]:
        """Adds a counter of recorded calls, and returns what counts some; each result is counted in one thread.

        Args:
            results: What happens to recorded calls.

        """
        family = Family(
            "mlflow_grpc_recorded_calls", Kind.COUNTER, "Calls selected for recording, by what became of them."
        )
        counters = {result: self._instruments.counter() for result in results}
        for result, counter in counters.items():
            family.add(labels(result=result), counter.total)
        self.families.append(family)
        return lambda result, number: counters[result].add(number)

    def count(self) -> None:
        """Counts the noted calls and requests, so that a scrape of any worker includes them."""
        for method in self._methods.values():
            method.count()
        for model in self.models:
            model.count()

    async def text(self, *, is_open_metrics: bool = False) -> str:
        """Returns all metrics in a Prometheus format.

        Args:
            is_open_metrics: True for OpenMetrics 1.0, False for the text format 0.0.4.
        """
        end = "# EOF\n" if is_open_metrics else ""
        return "".join([part async for part in self.parts(is_open_metrics=is_open_metrics)]) + end

    async def parts(self, *, is_open_metrics: bool = False) -> AsyncIterator[str]:
        """Yields the lines of one series at a time, and pauses for calls; see `text`.

        Args:
            is_open_metrics: As in `text`.

        Yields:
            The lines of a series, with the header of its family before the first one; empty if it is not shown.
        """
        self.count()
        until = time.perf_counter() + SLICE_S
        for family in self.families:
            for part in family.text(is_open_metrics=is_open_metrics):
                yield part
                if time.perf_counter() > until:
                    await asyncio.sleep(PAUSE_S)
                    until = time.perf_counter() + SLICE_S


@functools.cache  # Reading the metadata of two distributions takes as long as the other metrics of a server together.
def _versions() -> str:
    return labels(version=version("mlflow-grpc"), mlflow=version("mlflow"), python=platform.python_version())
