"""One server: its parts, and the steps of its life: start, load, open, lame duck, drain, stop.

Rule of this module: it creates the services and the ports, and hands work to the packages. The steps are taken in the
order that `mlflow_grpc.runner` describes.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc

from mlflow_grpc import addresses
from mlflow_grpc.calls.open_calls import OpenCalls
from mlflow_grpc.config import Configuration
from mlflow_grpc.contract.lockfile.lockset import LockSet
from mlflow_grpc.engine.admission import Stage
from mlflow_grpc.engine.catalog import Catalog, Entry, State
from mlflow_grpc.engine.concurrency import sample_event_loop
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.gauges import Gauges
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.main_thread import MainThread
from mlflow_grpc.model_loading import ModelLoader
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.registry_versions import RegistryVersions
from mlflow_grpc.services import goaway, health, listener, models, reflection, text, typed
from mlflow_grpc.services.dispatch import RpcDispatcher
from mlflow_grpc.services.health import health_names
from mlflow_grpc.settings import Settings
from mlflow_grpc.telemetry.metrics import ALONE, MetricsSlot
from mlflow_grpc.telemetry.tracer import make_tracer
from mlflow_grpc.thread_watch import watch_threads

if TYPE_CHECKING:  # Its libraries are imported only if there is an HTTP port.
    from mlflow_grpc.http.listener import HttpListener

logger = get_logger(__name__)

FLUSH_S = 2.0
"""Maximum time for gRPC to send the last responses after the last call has ended, in seconds."""

NOTICE_S = 2.0
"""Time for a load balancer that only checks connections to notice the closed port, in seconds."""

GOAWAY_LIMIT_S = 5.0
"""Maximum time that a busy connection is waited for until a GOAWAY can be sent, in seconds."""


class Server:
    """A server for the models of a configuration; used once, from start to stop."""

    def __init__(
        self,
        settings: Settings,
        configuration: Configuration,
        *,
        share_port: bool = False,
        slot: MetricsSlot = ALONE,
        versions: RegistryVersions | None = None,
    ) -> None:
        self._settings = settings
        self._open_calls = OpenCalls(make_tracer(settings))
        self._metrics = metrics = None if settings.http_port is None else slot.metrics(len(configuration.models))
        self._dispatcher = RpcDispatcher(self._open_calls, settings, metrics)
        self._untyped = (text.NAME, text.STREAM_NAME, models.NAME, health.NAME)
        self.services: tuple[str, ...] = self._untyped
        self.catalog = Catalog(
            configuration.models, lambda: Engine.from_settings(settings, metrics), reserved=self.services
        )
        self._health = health.HealthServicer(self.services)
        self._gauges = Gauges(metrics, self.catalog, lambda: self._health.is_serving) if metrics is not None else None
        locks = LockSet.from_file(settings.lock)
        self._typed = typed.TypedService(self._dispatcher, self.catalog, locks)
        self._loader = ModelLoader(
            settings, self.catalog, self._health, locks, self._make_typed, versions or RegistryVersions()
        )
        self._models = models.ModelsServicer(self.catalog, self._typed)
        self._reflection = reflection.ReflectionServicer()
        handlers = [
            self._typed,  # gRPC searches them in this order for each call.
            *text.handlers(self._dispatcher, self.catalog),
            models.handlers(self._dispatcher, self._models),
            health.handlers(self._dispatcher, self._health),
        ]
        if settings.reflection:
            handlers += reflection.handlers(self._dispatcher, self._reflection)
            self._reflection.offer(self.services, self._typed.pool, self._typed.file)
        handlers.append(self._dispatcher.unknown_methods())
        self._http = self._http_port(configuration, share_port=share_port)
        self._grpc: grpc.aio.Server = listener.make_server(settings, handlers, share_port=share_port)
        self._goaway: asyncio.Future[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Starts to listen. Health is NOT_SERVING and calls are UNAVAILABLE until a model is loaded.

        Raises:
            StartError: The address is taken, or the TLS files are invalid.

        """
        self._health.set_serving(False, *self._health_names())
        self.port = listener.listen(self._grpc, self._settings, self._dispatcher.handshakes)
        await self._grpc.start()
        if self._http is not None:
            await self._http.start(self.port)

    def _http_port(self, configuration: Configuration, *, share_port: bool) -> "HttpListener | None":
        """Makes the HTTP port, if there is to be one; its libraries are imported only then."""
        if self._gauges is None:
            return None
        from mlflow_grpc.http.app import HttpApp
        from mlflow_grpc.http.listener import HttpListener

        app = HttpApp(
            self._settings,
            self._open_calls,
            self.catalog,
            lambda: self._health.is_serving,
            self._gauges,
            configuration.service,
            self._models.describe_all,
        )
        return HttpListener(app, self._settings, share_port=share_port)

    async def load(self, main: MainThread, when_loading: Callable[[str], object]) -> None:
        """Loads the models; see `ModelLoader.load`."""
        await self._loader.load(main, when_loading)

    def host(self, entry: Entry, loaded: ServableModel) -> None:
        """Adds a loaded model to the catalog; see `ModelLoader.host`."""
        self._loader.host(entry, loaded)

    def open(self) -> None:
        """Opens the server for calls, unless it is draining already."""
        if self.catalog.stage is Stage.LOADING:
            self._loader.offer_typed()
            self.catalog.set_stage(Stage.OPEN)
            self._health.set_serving(True, *self._health_names(State.READY))

    def _make_typed(self) -> bool:
        """Makes the typed RPCs of the models that are ready; returns False if there are none."""
        if not self._typed.make():
            return False
        self.services = (*self._untyped[:2], typed.NAME, *self._untyped[2:])
        self._health.services = ("", *self.services)
        self._reflection.offer(self.services, self._typed.pool, self._typed.file)
        return True

    def _health_names(self, *states: State) -> list[str]:
        """Names in health checks of the server as a whole and of the models in some states, by default in all."""
        entries = [entry for entry in self.catalog.entries if not states or entry.state in states]
        return [*self._health.services, *(name for entry in entries for name in health_names(entry))]

    @property
    def takes_calls(self) -> bool:
        """True if the port is open and at least one model is; the first one may be before all are loaded."""
        return self.port != 0 and any(entry.engine.admission.stage is Stage.OPEN for entry in self.catalog.entries)

    @property
    def ready_line(self) -> str:
        """Log line about the served models, the address, the services and TLS."""
        ready = [entry for entry in self.catalog.entries if entry.loaded is not None]
        listed = ", ".join(f"{entry.label} ({entry.loaded.model.description})" for entry in ready if entry.loaded)
        services = [*self.services, *([reflection.NAME_V1, reflection.NAME] if self._settings.reflection else [])]
        http = f", HTTP on {self.http_url}" if self.http_url else ""
        where = f"{self.address}, services {', '.join(services)}{http}"
        listed = f"{'models' if len(ready) > 1 else 'model'} {listed} on {where}"
        return f"ready: {listed}; {listener.security(self._settings)}"

    @property
    def address(self) -> str:
        """Address of the server, as a client writes it."""
        return addresses.with_port(self._settings.host, self.port)

    @property
    def http_url(self) -> str:
        """Address of the HTTP port, as a browser takes it; empty if there is none."""
        return self._http.url if self._http is not None else ""

    async def watch(self) -> None:
        """Watches threads, the event loop, connections, the process and the root logger; runs until cancelled."""
        http = [self._http.watch()] if self._http is not None else []
        http += [self._gauges.watch_process()] if self._gauges is not None else []
        await asyncio.gather(
            watch_threads(self.catalog, self._health),
            self._watch_loop(),
            self._dispatcher.watch_connections(self._settings.timeout_s),
            *http,
        )

    async def _watch_loop(self) -> None:
        """Limits the concurrency of models that keep the event loop from its work; runs until cancelled."""
        async for sample in sample_event_loop():
            if self._gauges is not None:
                self._gauges.note(sample)
            for entry in self.catalog.entries:
                entry.engine.adapt(sample)

    async def lame_duck(self, lame_duck_s: float) -> None:
        """Sends callers elsewhere while calls are answered as before.

        Health is NOT_SERVING. After the lame duck the port is closed. Once a load balancer that checks nothing else has
        had time to notice, GOAWAY tells clients to make no new calls on open connections.

        Args:
            lame_duck_s: Time that the port stays open, in seconds.

        """
        self._health.set_serving(False, *self._health_names())
        if self._http is not None:
            self._http.send_callers_away()
        if lame_duck_s:
            logger.info("lame duck: NOT_SERVING, and calls are answered, for %g s", lame_duck_s)
            await asyncio.sleep(lame_duck_s)
        port = goaway.Port(self.port)
        port.close()
        if self._http is not None:
            self._http.close_port()
        await asyncio.sleep(min(NOTICE_S, lame_duck_s))
        if self._settings.tls_cert is None:
            await port.send_goaway_to_all(limit_s=GOAWAY_LIMIT_S)
        else:
            oldest_s = listener.connection_age_s(self._settings) * listener.MAX_AGE_SPREAD
            await port.wait_until_left(limit_s=min(oldest_s, self._settings.drain_timeout_s))
            # Sends GOAWAY on the connections that are left. gRPC cancels calls that clients send before they read it,
            # which are fewer than those that would be refused until the calls in flight have ended.
            self._goaway = asyncio.ensure_future(self._grpc.stop(self._settings.drain_timeout_s + FLUSH_S))
        await self._open_calls.arrivals.wait_until_idle()

    async def drain(self) -> int:
        """Refuses new calls, and waits for the calls in flight, up to the drain timeout.

        Calls that arrive while it waits are refused with UNAVAILABLE, so that clients can send them elsewhere.

        Returns:
            Number of calls that had not ended by then.

        """
        self.catalog.set_stage(Stage.DRAINING)
        self._health.set_serving(False, *self._health_names())
        admissions = [entry.engine.admission for entry in self.catalog.entries]
        logger.info("draining: %d calls in flight", sum(admission.admitted_requests for admission in admissions))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await asyncio.gather(
                    self._open_calls.end_streams(),
                    *(admission.wait_until_empty() for admission in admissions),
                )
                await self._open_calls.arrivals.wait_until_idle()
        return sum(admission.admitted_requests + admission.unsent_responses for admission in admissions)

    async def stop(self) -> None:
        """Closes the port and all connections; calls in flight end with UNAVAILABLE."""
        for entry in self.catalog.entries:
            entry.engine.threads.close()
        self._open_calls.cancel_all()
        stopping = [self._grpc.stop(FLUSH_S), *([self._http.stop()] if self._http is not None else [])]
        await asyncio.gather(*stopping, *([self._goaway] if self._goaway is not None else []))
        await self._open_calls.close()
