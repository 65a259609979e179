"""The models of a configuration and the gRPC handlers that answer calls to them, without a port.

Rule of this module: it creates the services and hands work to the packages. `mlflow_grpc.lifecycle` puts a gRPC port
and an HTTP port in front of it. An engine with a gRPC server of its own, such as Ray Serve, registers the handlers.
"""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from _mlflow_grpc_protocol.typed_terms import RpcKind

from mlflow_grpc.access.gate import make_gate
from mlflow_grpc.access.refusals import Refusal
from mlflow_grpc.calls.backend_metrics import BackendMetrics
from mlflow_grpc.calls.inference_models import InferenceModels
from mlflow_grpc.calls.open_calls import OpenCalls
from mlflow_grpc.config import Configuration
from mlflow_grpc.contract.lockfile.lockset import LockSet
from mlflow_grpc.daemon_threads import DaemonLoadThread, LoadThread
from mlflow_grpc.engine.admission import Stage
from mlflow_grpc.engine.catalog import Catalog, Entry, State
from mlflow_grpc.engine.concurrency import sample_event_loop
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.gauges import Gauges
from mlflow_grpc.engine.layers import add_layers
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.engine.utilization import Utilization
from mlflow_grpc.model_loading import ModelLoader
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.recording.recorder import make_recorder
from mlflow_grpc.recording.sampling import recording_engine
from mlflow_grpc.registry_versions import RegistryVersions
from mlflow_grpc.rollout.handover import take_over
from mlflow_grpc.rollout.publisher import Publisher
from mlflow_grpc.rollout.rollout import Rollout
from mlflow_grpc.rollout.supervisor_link import SupervisorLink
from mlflow_grpc.services import flight, health, models, open_inference, reflection, text, typed
from mlflow_grpc.services.dispatch import RpcDispatcher
from mlflow_grpc.services.health import health_names
from mlflow_grpc.services.health_access import HealthAccess
from mlflow_grpc.services.named_models import NamedModels
from mlflow_grpc.settings import Settings
from mlflow_grpc.telemetry.metrics import ALONE, MetricsSlot
from mlflow_grpc.telemetry.tracer import make_tracer
from mlflow_grpc.thread_watch import watch_threads

if TYPE_CHECKING:
    from mlflow_grpc.services.dispatch import Handlers

logger = get_logger(__name__)


IDLE_CHECK_S = 0.05
"""Interval between two checks whether all calls have ended, in seconds."""


class Host:
    """Answers calls to the models of a configuration; used once, in one event loop, from `load` to `close`."""

    def __init__(
        self,
        settings: Settings,
        configuration: Configuration,
        *,
        slot: MetricsSlot = ALONE,
        versions: RegistryVersions | None = None,
        link: SupervisorLink | None = None,
        has_metrics: bool | None = None,
        only_server: bool = True,
    ) -> None:
        """Makes the handlers. Health is NOT_SERVING and calls are UNAVAILABLE until a model is loaded.

        Args:
            settings: The settings; those of ports are not used here, except for `has_metrics`.
            configuration: The models.
            slot: Slot of this process in the metrics of all workers.
            versions: Versions that aliases mean to all processes of the server.
            link: Connection to the supervisor of this process; None if there is none.
            has_metrics: True to count calls; by default, if there is an HTTP port to read the metrics at.
            only_server: False for one of several replicas, since a reload would reach only one of them.

        """
        self._settings = settings
        versions = versions or RegistryVersions()
        self.open_calls = OpenCalls(make_tracer(settings))
        if has_metrics is None:
            has_metrics = settings.http_port is not None
        metrics = slot.metrics(len(configuration.models)) if has_metrics else None
        self.gate = make_gate(settings, configuration.access)
        """Recognizes callers; None if every caller may call."""
        if self.gate is not None and metrics is not None:
            self.gate.count = metrics.refused_callers(Refusal)
        self.dispatcher = RpcDispatcher(self.open_calls, settings, metrics, self.gate)
        self._recorder = make_recorder(settings, metrics)
        engine_class = Engine if self._recorder is None else recording_engine(self._recorder, settings.record_share)
        self._untyped = (text.NAME, text.STREAM_NAME, flight.NAME, models.NAME, open_inference.NAME, health.NAME)
        self.services: tuple[str, ...] = self._untyped
        """Full names of the gRPC services, without reflection."""

        def make_engine() -> Engine:
            model_metrics = None if metrics is None else metrics.add_model(rpcs=len(RpcKind))
            return engine_class.from_settings(settings, model_metrics)

        self.catalog = Catalog(configuration.models, make_engine, reserved=self.services)
        self.catalog.equip = partial(add_layers, timeout_s=settings.timeout_s)
        self.utilization = Utilization(self.catalog)
        self._backend_metrics = BackendMetrics(self.open_calls)
        self.catalog.names_models = configuration.access is None
        access = None if self.gate is None else HealthAccess(self.gate, self.catalog)
        self._health = health.HealthServicer(self.services, access)
        self.gauges = Gauges(metrics, self.catalog, lambda: self.is_serving) if metrics is not None else None
        """Gauges of the metrics; None if there are no metrics."""
        self._locks = locks = LockSet.from_file(settings.lock)
        self._predecessor = link.predecessor if link is not None else None
        numbered = locks if self._predecessor is None else self._predecessor.numbered(locks)
        self._typed = typed.TypedService(self.dispatcher, self.catalog, numbered)
        self._loader = ModelLoader(settings, self.catalog, self._health, locks, self._make_typed, versions)
        self._publisher = publisher = Publisher(
            self.catalog,
            self._typed,
            locks,
            self._health,
            self._show_typed,
            allow_incompatible=settings.allow_incompatible,
        )
        self._rollout = Rollout(settings, self.catalog, publisher, versions, link, only_server=only_server)
        self.models = models.ModelsServicer(self.catalog, self._typed)
        named = NamedModels(self.catalog, max_unread=settings.queue_calls)
        self.inference_models = InferenceModels(
            self.catalog, lambda: self.is_serving, lambda entry: all(map(self._health.serves, health_names(entry)))
        )
        """The models as the Open Inference Protocol describes them."""
        open_inference_servicer = open_inference.OpenInferenceServicer(
            self.inference_models, named, self._rollout.reload
        )
        self._reflection = reflection.ReflectionServicer(self._typed)
        handlers = [
            self._typed,  # gRPC searches them in this order for each call.
            *text.handlers(self.dispatcher, self.catalog),
            models.handlers(self.dispatcher, self.models),
            open_inference.handlers(self.dispatcher, open_inference_servicer, named),
            flight.handlers(
                self.dispatcher, flight.FlightServicer(self.catalog, self._health, settings.max_message_bytes)
            ),
            health.handlers(self.dispatcher, self._health),
        ]
        if settings.reflection:
            handlers += reflection.handlers(self.dispatcher, self._reflection)
            self._reflection.offer(self.services, self._typed.pool, self._typed.file)
        handlers.append(self.dispatcher.unknown_methods())
        self.handlers: tuple[Handlers, ...] = tuple(handlers)
        """Handlers for `add_generic_rpc_handlers` of a `grpc.aio` server. They take and return bytes."""
        self._set_serving(False)

    async def load(
        self, thread: LoadThread | None = None, when_loading: Callable[[str], object] = lambda _: None
    ) -> None:
        """Loads the models; see `ModelLoader.load`.

        Args:
            thread: Where the models are loaded; by default in daemon threads. Models that call `signal.signal` while
                they are loaded need the main thread.
            when_loading: Called with a description of each model when its load begins, and with an empty text when it
                has ended.

        """
        thread = thread or DaemonLoadThread()
        await self._loader.load(thread, when_loading)
        if self._predecessor is not None:
            await take_over(self._predecessor, self.catalog, self._publisher, self._locks, self._settings)
        self._rollout.start(thread)

    def add(self, entry: Entry, loaded: ServableModel) -> None:
        """Adds a loaded model to the catalog; see `ModelLoader.add`."""
        self._loader.add(entry, loaded)

    def open(self) -> None:
        """Opens for calls, unless it drains already: health is SERVING."""
        if self.catalog.stage is Stage.LOADING:
            self._loader.offer_typed()
            self.catalog.set_stage(Stage.OPEN)
            self._set_serving(True, State.READY)

    def _make_typed(self) -> bool:
        """Makes the typed RPCs of the models that are ready; returns False if there are none."""
        if not self._typed.make():
            return False
        self._show_typed()
        return True

    def _show_typed(self) -> None:
        """Shows the services and messages as the typed RPCs are now."""
        offered = (typed.NAME,) if self._typed.is_offered else ()
        self.services = (*self._untyped[:2], *offered, *self._untyped[2:])
        self._health.services = ("", *self.services)
        if self.catalog.stage is Stage.OPEN:
            self._health.set_serving(self._health.is_serving, *offered)
        self._reflection.offer(self.services, self._typed.pool, self._typed.file)

    def _set_serving(self, serving: bool, *states: State) -> None:
        """Sets the health of the server as a whole and of the models in some states, by default in all."""
        listed = (*self.catalog.entries, *(entry for entry in self.catalog.replaced if entry.is_kept))
        entries = [entry for entry in listed if not states or entry.state in states]
        names = [*self._health.services, *(name for entry in entries for name in health_names(entry))]
        self._health.set_serving(serving, *names)

    @property
    def is_serving(self) -> bool:
        """True while health is SERVING."""
        return self._health.is_serving

    @property
    def takes_calls(self) -> bool:
        """True if at least one model is open; the first one may be before all are loaded."""
        return any(entry.engine.admission.stage is Stage.OPEN for entry in self.catalog.entries)

    def send_callers_away(self) -> None:
        """Sets health to NOT_SERVING; calls are answered as before."""
        self._set_serving(False)

    def hint(self, name: str, alias: str | None) -> int:
        """Makes tracked models query the registry now; see `Rollout.hint`."""
        return self._rollout.hint(name, alias)

    async def watch(self) -> None:
        """Watches threads, the event loop, open calls, the process and the root logger; runs until cancelled."""
        process = [self.gauges.watch_process()] if self.gauges is not None else []
        with contextlib.ExitStack() as pollers:
            for poller in self.gate.pollers if self.gate is not None else ():
                pollers.enter_context(poller)
            await asyncio.gather(
                watch_threads(self.catalog, self._health),
                self._watch_loop(),
                self.dispatcher.watch_connections(self._settings.timeout_s),
                self._rollout.watch(),
                *process,
            )

    async def _watch_loop(self) -> None:
        """Measures the utilization, and limits the concurrency of models that keep the event loop from its work."""
        async for sample in sample_event_loop():
            self.utilization.note(sample)
            if self._settings.backend_metrics:
                self.dispatcher.backend_metrics = self._backend_metrics.trailers(sample.at, self.utilization.value)
            if self.gauges is not None:
                self.gauges.note(sample, self.utilization.value)
            for engine in self.catalog.engines:
                engine.adapt(sample)

    async def wait_until_idle(self) -> None:
        """Waits until no call and no stream to a model is open; new ones are answered meanwhile."""
        while not all(engine.admission.is_idle for engine in self.catalog.engines):  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(IDLE_CHECK_S)

    async def drain(self, limit_s: float) -> int:
        """Refuses new calls, and waits for the calls in flight.

        Calls that arrive while it waits are refused with UNAVAILABLE, so that clients can send them elsewhere.

        Args:
            limit_s: Maximum time to wait, in seconds.

        Returns:
            Number of calls that had not ended by then.

        """
        self.catalog.set_stage(Stage.DRAINING)
        self._set_serving(False)
        admissions = [engine.admission for engine in self.catalog.engines]
        logger.info("draining: %d calls in flight", sum(admission.admitted_requests for admission in admissions))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await asyncio.gather(
                    self.open_calls.end_streams(),
                    *(admission.wait_until_empty() for admission in admissions),
                )
                await self.open_calls.arrivals.wait_until_idle()
        return sum(admission.admitted_requests + admission.unsent_responses for admission in admissions)

    def end_calls(self) -> None:
        """Ends all calls that are still open with UNAVAILABLE, and the threads of the models."""
        for engine in self.catalog.engines:
            engine.threads.close()
        self.open_calls.cancel_all()

    async def close(self) -> None:
        """Sends and writes what the calls have left behind, such as traces; called after `end_calls`."""
        await self.open_calls.close()
        if self._recorder is not None:
            await self._recorder.close()
        await self._rollout.close()
