"""The life of one server: listen, load, serve, lame duck, drain, stop.

Rule of this module: it connects the rooms and holds the order of events. The work is done in the rooms.
"""

import asyncio
import contextlib
import gc
import time
from functools import partial
from typing import TYPE_CHECKING

import grpc

from mlflow_grpc import addresses, root_logger
from mlflow_grpc.calls.open_calls import OpenCalls
from mlflow_grpc.config import Configuration
from mlflow_grpc.contract.lockfile.lockset import LockSet
from mlflow_grpc.engine import loading, typed_plan
from mlflow_grpc.engine.admission import Stage
from mlflow_grpc.engine.catalog import Catalog, Entry, State
from mlflow_grpc.engine.concurrency import sample_event_loop
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.gauges import Gauges
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.engine.turns import Turns
from mlflow_grpc.errors import StartError
from mlflow_grpc.main_thread import MainThread
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.process import in_daemon_thread
from mlflow_grpc.services import goaway, health, listener, models, reflection, text, typed
from mlflow_grpc.services.dispatch import RpcDispatcher
from mlflow_grpc.settings import OnError, Settings, spelling
from mlflow_grpc.telemetry.metrics import ALONE, MetricsSlot
from mlflow_grpc.telemetry.tracer import make_tracer

if TYPE_CHECKING:  # Its libraries are imported only if there is an HTTP port.
    from mlflow_grpc.http.listener import HttpListener

logger = get_logger(__name__)

FLUSH_S = 2.0
"""Maximum time for gRPC to send the last responses after the last call has ended, in seconds."""

MAX_FETCHES = 64
"""Number of models that are fetched at a time; high enough that a dead registry does not delay the others."""

NOTICE_S = 2.0
"""Time for a load balancer that only checks connections to notice the closed port, in seconds."""

GOAWAY_LIMIT_S = 5.0
"""Maximum time that a busy connection is waited for until a GOAWAY can be sent, in seconds."""

HEALTH_INTERVAL_S = 1.0
"""Time between two checks whether hung calls hold all threads of a model, in seconds."""


class Server:
    """A server for the models of a configuration; used once, from start to stop."""

    def __init__(
        self, settings: Settings, configuration: Configuration, *, share_port: bool = False, slot: MetricsSlot = ALONE
    ) -> None:
        self._settings = settings
        self._stage = Stage.LOADING
        self._open_calls = OpenCalls(make_tracer(settings))
        self._metrics = metrics = None if settings.http_port is None else slot.metrics(len(configuration.models))
        self._dispatcher = RpcDispatcher(self._open_calls, settings, metrics)
        self._untyped = (text.NAME, text.STREAM_NAME, models.NAME, health.NAME)
        self.services: tuple[str, ...] = self._untyped
        self._compared: list[Entry] = []  # Models that have been compared with their locks.
        self._offered: list[Entry] = []  # Models that the typed RPCs were made for.
        self.catalog = Catalog(
            configuration.models, lambda: Engine.from_settings(settings, metrics), reserved=self.services
        )
        self._health = health.HealthServicer(self.services)
        self._gauges = Gauges(metrics, self.catalog, lambda: self._health.is_serving) if metrics is not None else None
        self._locks = LockSet.from_file(settings.lock)
        self._typed = typed.TypedService(self._dispatcher, self.catalog, self._locks)
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
        self.port = 0

    async def start(self) -> None:
        """Starts to listen. Health is NOT_SERVING and calls are UNAVAILABLE until a model is loaded.

        Raises:
            StartError: The address is taken, or the TLS files are invalid.

        """
        await self._health.set_serving(False, *self._health_names())
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

    async def load(self, main: MainThread) -> None:
        """Fetches several models at a time, and loads them one by one in the main thread, in the configuration's order.

        Each model takes calls as soon as it is ready.

        Args:
            main: The main thread of the process.

        Raises:
            StartError: A model without `on_error: skip` cannot be served, or no model can.

        """
        entries = self.catalog.entries
        await main.call(lambda: loading.import_libraries(entry.config for entry in entries))
        fetches = asyncio.Semaphore(MAX_FETCHES)
        turns = Turns(number for number, entry in enumerate(entries) if loading.is_fetched(entry.config))
        await asyncio.gather(*(self._load(number, main, fetches, turns) for number in range(len(entries))))
        self._offer_typed()
        if all(entry.state is State.FAILED for entry in entries):
            raise StartError("none of the models could be loaded")
        # Exempts what exists now: a full collection over all of MLflow's modules takes 0.1 s, in which no call is
        # answered.
        gc.collect()
        gc.freeze()

    async def _load(self, number: int, main: MainThread, fetches: asyncio.Semaphore, turns: Turns) -> None:
        entry, limit_s = self.catalog.entries[number], self._settings.load_timeout_s or None
        load_s = 0.0
        config, is_fetched = entry.config, False
        try:
            async with contextlib.nullcontext() if loading.is_fetched(config) else fetches:
                logger.info("loading %s from %s", entry.label or "a model", config.source)
                started_at = time.monotonic()
                async with asyncio.timeout(limit_s):
                    fetched = await in_daemon_thread(lambda: loading.fetch(config))
                load_s += time.monotonic() - started_at
            is_fetched = True
            if fetched is not None and fetched.version:
                logger.info("%s is version %s", config.source, fetched.version)
            async with turns.turn(number):
                load = partial(loading.load, config, self._settings, fetched, is_alone=len(self.catalog.entries) == 1)
                started_at = time.monotonic()
                loaded = await main.call(load, limit_s=limit_s)
                load_s += time.monotonic() - started_at
            await self.host(entry, loaded)
            if entry.engine.metrics is not None:
                entry.engine.metrics.loaded(load_s)
        except TimeoutError:
            late = f"within {limit_s:g} s ({spelling('load_timeout_s')})"
            message = f"it was not loaded {late}" if is_fetched else loading.not_fetched(config, late)
            self._skip_or_raise(entry, StartError(message))
        except StartError as error:
            self._skip_or_raise(entry, error)
        turns.give_up(number)
        await self._open_settled()
        if not turns.waiting:
            # The missing models are still being fetched, which may take long.
            self._offer_typed()

    async def _open_settled(self) -> None:
        """Opens the models that are ready, before all are loaded."""
        for entry in self.catalog.entries:
            if entry.engine.admission.stage is not Stage.LOADING or not self.catalog.is_settled(entry):
                continue
            self._compare_with_lock(entry)
            if entry.loaded is not None and self._stage is Stage.LOADING:
                entry.engine.admission.stage = Stage.OPEN
                await self._health.set_serving(True, *_names(entry))

    def _skip_or_raise(self, entry: Entry, error: StartError) -> None:
        """Skips a model that cannot be served, if its configuration says so; otherwise raises the error."""
        if (entry.config.on_error or OnError.STOP) is OnError.STOP:
            if len(self.catalog.entries) > 1:
                raise StartError(f"{entry.config.source}: {error}") from error
            raise error
        logger.error("model %s is left out: %s", entry.config.source, error)
        self.catalog.mark_failed(entry, str(error))
        if entry.engine.metrics is not None:
            entry.engine.metrics.load_failed()

    async def host(self, entry: Entry, loaded: ServableModel) -> None:
        """Adds a loaded model to the catalog.

        Raises:
            StartError: Another model has the same name and version.

        """
        self.catalog.register(entry, loaded)
        await self._health.set_serving(False, *_names(entry))

    async def open(self) -> None:
        """Opens the server for calls, unless it is draining already."""
        if self._stage is Stage.LOADING:
            self._offer_typed()
            self._set_stage(Stage.OPEN)
            await self._health.set_serving(True, *self._health_names(State.READY))

    def _compare_with_lock(self, entry: Entry) -> None:
        """Compares a model with its lock, once.

        Raises:
            StartError: The model breaks old clients, and its configuration does not say `on_error: skip`.

        """
        if entry in self._compared:
            return
        self._compared.append(entry)
        try:
            verdict = typed_plan.verdict(entry, self.catalog, self._locks)
            if verdict is not None and verdict.breaking:
                if not self._settings.allow_incompatible:
                    raise StartError(verdict.refusal)  # noqa: TRY301
                logger.warning("%s breaks old clients: %s", verdict.label, "; ".join(map(str, verdict.breaking)))
        except StartError as error:
            self._skip_or_raise(entry, error)

    def _offer_typed(self) -> None:
        """Makes the typed RPCs of the models that are ready.

        Raises:
            StartError: A model breaks old clients, and its configuration does not say `on_error: skip`.

        """
        for entry in self.catalog.entries:
            if self.catalog.is_settled(entry):
                self._compare_with_lock(entry)
        ready = [entry for entry in self.catalog.entries if self.catalog.is_settled(entry)]
        if ready == self._offered or not self._typed.make():
            return
        self._offered = ready
        self.services = (*self._untyped[:2], typed.NAME, *self._untyped[2:])
        self._health.services = ("", *self.services)
        self._reflection.offer(self.services, self._typed.pool, self._typed.file)

    def _set_stage(self, stage: Stage) -> None:
        self._stage = stage
        for entry in self.catalog.entries:
            entry.engine.admission.stage = stage

    def _health_names(self, *states: State) -> list[str]:
        """Names in health checks of the server as a whole and of the models in some states, by default in all."""
        entries = [entry for entry in self.catalog.entries if not states or entry.state in states]
        return [*self._health.services, *(name for entry in entries for name in _names(entry))]

    @property
    def takes_calls(self) -> bool:
        """True if at least one model is open for calls; the first one may be before all are loaded."""
        return any(entry.engine.admission.stage is Stage.OPEN for entry in self.catalog.entries)

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
            self._watch_threads(),
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

    async def _watch_threads(self) -> None:
        """Sets health to NOT_SERVING for models whose threads are all hung, and for the server if all models are."""
        exhausted: dict[int, bool] = {}
        while True:
            await asyncio.sleep(HEALTH_INTERVAL_S)
            root_logger.restore()
            entries = [entry for entry in self.catalog.entries if entry.state is State.READY]
            for entry in entries:
                was, now = exhausted.get(id(entry), False), entry.engine.threads.is_exhausted
                if now == was or self._stage is not Stage.OPEN:
                    continue
                exhausted[id(entry)] = now
                all_exhausted = all(exhausted.get(id(ready), False) for ready in entries)
                await self._health.set_serving(not now, *_names(entry))
                await self._health.set_serving(not all_exhausted, *self._health.services)
                if now:
                    logger.error(
                        "%s: every thread is held by a call that does not end: not serving, restart the server",
                        entry.label,
                    )
                else:
                    logger.info("%s: threads are free again: serving", entry.label)

    async def lame_duck(self, lame_duck_s: float) -> None:
        """Sends callers elsewhere while calls are answered as before.

        Health is NOT_SERVING. After the lame duck the port is closed. Once a load balancer that checks nothing else has
        had time to notice, GOAWAY tells clients to make no new calls on open connections.

        Args:
            lame_duck_s: Time that the port stays open, in seconds.

        """
        await self._health.set_serving(False, *self._health_names())
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
        await self._open_calls.arrivals.wait_until_idle()

    async def drain(self) -> int:
        """Refuses new calls, and waits for the calls in flight, up to the drain timeout.

        Calls that arrive while it waits are refused with UNAVAILABLE, so that clients can send them elsewhere.

        Returns:
            Number of calls that had not ended by then.

        """
        self._set_stage(Stage.DRAINING)
        await self._health.set_serving(False, *self._health_names())
        admissions = [entry.engine.admission for entry in self.catalog.entries]
        logger.info("draining: %d calls in flight", sum(admission.admitted_calls for admission in admissions))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await asyncio.gather(
                    self._open_calls.end_streams(),
                    *(admission.wait_until_empty() for admission in admissions),
                )
                await self._open_calls.arrivals.wait_until_idle()
        return sum(admission.admitted_calls + admission.unsent_responses for admission in admissions)

    async def stop(self) -> None:
        """Closes the port and all connections; calls in flight end with UNAVAILABLE."""
        for entry in self.catalog.entries:
            entry.engine.threads.close()
        self._open_calls.cancel_all()
        await asyncio.gather(self._grpc.stop(FLUSH_S), *([self._http.stop()] if self._http is not None else []))
        await self._open_calls.close()


def _names(entry: Entry) -> tuple[str, ...]:
    """Names of a model in health checks: its name, and its label if it has a version."""
    return tuple(dict.fromkeys((entry.name, entry.label))) if entry.name else ()
