"""One server from start to end: listen, load, serve, send callers away, drain, stop.

Rule of this module: it puts the parts together and holds their order; each does its own work, none at import.
"""

import asyncio
import contextlib
import gc
from functools import partial

import grpc

from mlflow_grpc import root_logger
from mlflow_grpc.config import Configuration
from mlflow_grpc.contract.lockfile.lockset import LockSet
from mlflow_grpc.engine import loading, typed_plan
from mlflow_grpc.engine.admission import Stage
from mlflow_grpc.engine.catalog import Catalog, Entry, State
from mlflow_grpc.engine.concurrency import sample_event_loop
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.engine.turns import Turns
from mlflow_grpc.errors import StartError
from mlflow_grpc.main_thread import MainThread
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.process import in_daemon_thread
from mlflow_grpc.services import connections, health, listener, models, reflection, text, typed
from mlflow_grpc.services.dispatch import RpcDispatcher
from mlflow_grpc.settings import OnError, Settings, spelling

logger = get_logger(__name__)

FLUSH_S = 2.0
"""How long gRPC may take to send the last answers once no call is left, in seconds."""

MAX_FETCHES = 64
"""How many models are fetched at a time; so many that those of a dead registry do not keep the others waiting."""

NOTICE_S = 2.0
"""How long a balancer that only tries to connect has to notice that the port is closed, in seconds."""

GOAWAY_LIMIT_S = 5.0
"""How long a connection may be so busy that its client cannot be told to go, in seconds."""

HEALTH_INTERVAL_S = 1.0
"""How often the server looks whether hung calls hold all of its threads, in seconds."""


class Server:
    """A server for the models of a configuration. Used once: start, serve, stop."""

    def __init__(self, settings: Settings, configuration: Configuration, *, share_port: bool = False) -> None:
        self._settings = settings
        self._stage = Stage.LOADING
        self._dispatcher = RpcDispatcher(shows_exceptions=settings.show_exceptions)
        self._untyped = (text.NAME, text.STREAM_NAME, models.NAME, health.NAME)
        self.services: tuple[str, ...] = self._untyped
        self._judged: list[Entry] = []
        self._offered: list[Entry] = []  # The models that the typed RPCs are made for.
        self.catalog = Catalog(configuration.models, lambda: Engine.from_settings(settings), reserved=self.services)
        self._health = health.HealthServicer(self.services)
        self._locks = LockSet.from_file(settings.lock)
        self._typed = typed.TypedService(self._dispatcher, self.catalog, self._locks)
        self._reflection = reflection.ReflectionServicer()
        handlers = [
            self._typed,  # gRPC asks them in this order, with each call.
            *text.handlers(self._dispatcher, self.catalog),
            models.handlers(self._dispatcher, self.catalog, self._typed),
            health.handlers(self._dispatcher, self._health),
        ]
        if settings.reflection:
            handlers += reflection.handlers(self._dispatcher, self._reflection)
            self._reflection.offer(self.services, self._typed.pool, self._typed.file)
        self._grpc: grpc.aio.Server = listener.make_server(settings, handlers, share_port=share_port)
        self.port = 0

    async def start(self) -> None:
        """Listens. Health answers NOT_SERVING and predict UNAVAILABLE until a model is loaded.

        Raises:
            StartError: The address is taken, or the TLS files are no good.

        """
        await self._health.set_serving(False, *self._health_names())
        self.port = listener.listen(self._grpc, self._settings, self._dispatcher.handshakes)
        await self._grpc.start()

    async def load(self, main: MainThread) -> None:
        """Fetches the models, several at a time, and loads them in the main thread: one at a time, the first in the
        configuration of those that are fetched. Each takes calls as soon as it is ready.

        Args:
            main: The main thread of the process.

        Raises:
            StartError: One cannot be served and is not to be skipped, or none can.

        """
        entries = self.catalog.entries
        await main.call(lambda: loading.import_libraries(entry.config for entry in entries))
        fetches = asyncio.Semaphore(MAX_FETCHES)
        turns = Turns(number for number, entry in enumerate(entries) if loading.is_fetched(entry.config))
        await asyncio.gather(*(self._load(number, main, fetches, turns) for number in range(len(entries))))
        self._offer_typed()
        if all(entry.state is State.FAILED for entry in entries):
            raise StartError("none of the models could be loaded")
        # What is there now stays: a full collection that goes through all of MLflow's modules takes 0.1 s, in which
        # no call is answered.
        gc.collect()
        gc.freeze()

    async def _load(self, number: int, main: MainThread, fetches: asyncio.Semaphore, turns: Turns) -> None:
        entry, limit_s = self.catalog.entries[number], self._settings.load_timeout_s or None
        config, is_fetched = entry.config, False
        try:
            async with contextlib.nullcontext() if loading.is_fetched(config) else fetches:
                logger.info("loading %s from %s", entry.label or "a model", config.source)
                async with asyncio.timeout(limit_s):
                    fetched = await in_daemon_thread(lambda: loading.fetch(config))
            is_fetched = True
            if fetched is not None and fetched.version:
                logger.info("%s is version %s", config.source, fetched.version)
            async with turns.turn(number):
                load = partial(loading.load, config, self._settings, fetched, is_alone=len(self.catalog.entries) == 1)
                loaded = await main.call(load, limit_s=limit_s)
            await self.host(entry, loaded)
        except TimeoutError:
            late = f"within {limit_s:g} s ({spelling('load_timeout_s')})"
            words = f"it was not loaded {late}" if is_fetched else loading.not_fetched(config, late)
            self._leave_out(entry, StartError(words))
        except StartError as error:
            self._leave_out(entry, error)
        turns.give_up(number)
        await self._open_settled()
        if not turns.waiting:
            # Only models that are being fetched are missing, which may take long.
            self._offer_typed()

    async def _open_settled(self) -> None:
        """Opens the models that are ready for calls, before all are loaded."""
        for entry in self.catalog.entries:
            if entry.engine.admission.stage is not Stage.LOADING or not self.catalog.is_settled(entry):
                continue
            self._judge(entry)
            if entry.loaded is not None and self._stage is Stage.LOADING:
                entry.engine.admission.stage = Stage.OPEN
                await self._health.set_serving(True, *_names(entry))

    def _leave_out(self, entry: Entry, error: StartError) -> None:
        """Does without a model that cannot be served, if that is how it is to be; else raises the error."""
        if (entry.config.on_error or OnError.STOP) is OnError.STOP:
            if len(self.catalog.entries) > 1:
                raise StartError(f"{entry.config.source}: {error}") from error
            raise error
        logger.error("model %s is left out: %s", entry.config.source, error)
        self.catalog.mark_failed(entry, str(error))

    async def host(self, entry: Entry, loaded: ServableModel) -> None:
        """Gives the server a loaded model.

        Raises:
            StartError: There is another one of its name and version.

        """
        self.catalog.register(entry, loaded)
        await self._health.set_serving(False, *_names(entry))

    async def open(self) -> None:
        """Takes calls from now on, unless the server is draining already."""
        if self._stage is Stage.LOADING:
            self._offer_typed()
            self._set_stage(Stage.OPEN)
            await self._health.set_serving(True, *self._health_names(State.READY))

    def _judge(self, entry: Entry) -> None:
        """Compares a model with its lock, once.

        Raises:
            StartError: It breaks old clients, going by its lock, and is not to be skipped.

        """
        if entry in self._judged:
            return
        self._judged.append(entry)
        try:
            verdict = typed_plan.verdict(entry, self.catalog, self._locks)
            if verdict is not None and verdict.breaking:
                if not self._settings.allow_incompatible:
                    raise StartError(verdict.refusal)  # noqa: TRY301
                logger.warning("%s breaks old clients: %s", verdict.label, "; ".join(map(str, verdict.breaking)))
        except StartError as error:
            self._leave_out(entry, error)

    def _offer_typed(self) -> None:
        """Makes the RPCs that take messages of the models' own types, for the models that are ready.

        Raises:
            StartError: A model breaks old clients, going by its lock, and is not to be skipped.

        """
        for entry in self.catalog.entries:
            if self.catalog.is_settled(entry):
                self._judge(entry)
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
        """The server as a whole, and the models that are so far; all if none is named."""
        entries = [entry for entry in self.catalog.entries if not states or entry.state in states]
        return [*self._health.services, *(name for entry in entries for name in _names(entry))]

    @property
    def takes_calls(self) -> bool:
        """Whether a model is open for calls; some may be before all are loaded."""
        return any(entry.engine.admission.stage is Stage.OPEN for entry in self.catalog.entries)

    @property
    def ready_line(self) -> str:
        """Says in one line what is served where, and whether over TLS."""
        ready = [entry for entry in self.catalog.entries if entry.loaded is not None]
        listed = ", ".join(f"{entry.label} ({entry.loaded.model.description})" for entry in ready if entry.loaded)
        services = [*self.services, *([reflection.NAME_V1, reflection.NAME] if self._settings.reflection else [])]
        listed = f"{'models' if len(ready) > 1 else 'model'} {listed} on {self.address}, services {', '.join(services)}"
        return f"ready: {listed}; {listener.security(self._settings)}"

    @property
    def address(self) -> str:
        """Where the server listens, as a client writes it."""
        return f"[{host}]:{self.port}" if ":" in (host := self._settings.host) else f"{host}:{self.port}"

    async def watch(self) -> None:
        """Looks for what hangs, in models and on its way in, and for what models did to the log; until cancelled."""
        await asyncio.gather(
            self._watch_threads(), self._watch_loop(), self._dispatcher.watch_connections(self._settings.timeout_s)
        )

    async def _watch_loop(self) -> None:
        """Has models run fewer calls at a time while those keep the event loop from its work."""
        async for sample in sample_event_loop():
            for entry in self.catalog.entries:
                entry.engine.adapt(sample)

    async def _watch_threads(self) -> None:
        """Says NOT_SERVING of models whose threads are all held by hung calls, and of the server if all are so."""
        stuck: dict[int, bool] = {}
        while True:
            await asyncio.sleep(HEALTH_INTERVAL_S)
            root_logger.restore()
            entries = [entry for entry in self.catalog.entries if entry.state is State.READY]
            for entry in entries:
                was, now = stuck.get(id(entry), False), entry.engine.threads.is_exhausted
                if now == was or self._stage is not Stage.OPEN:
                    continue
                stuck[id(entry)] = now
                all_stuck = all(stuck.get(id(each), False) for each in entries)
                await self._health.set_serving(not now, *_names(entry))
                await self._health.set_serving(not all_stuck, *self._health.services)
                if now:
                    logger.error(
                        "%s: every thread is held by a call that does not end: not serving, restart the server",
                        entry.label,
                    )
                else:
                    logger.info("%s: threads are free again: serving", entry.label)

    async def send_callers_away(self, lame_duck_s: float) -> None:
        """Has callers go elsewhere, while calls are answered as before.

        Health says NOT_SERVING. After the lame duck the port is closed, and when a balancer that looks at nothing else
        has had time to notice, clients are told to make no new calls on the connections that are open.

        Args:
            lame_duck_s: How long the port stays open, in seconds.

        """
        await self._health.set_serving(False, *self._health_names())
        if lame_duck_s:
            logger.info("lame duck: NOT_SERVING, and calls are answered, for %g s", lame_duck_s)
            await asyncio.sleep(lame_duck_s)
        port = connections.Port(self.port)
        port.close()
        await asyncio.sleep(min(NOTICE_S, lame_duck_s))
        if self._settings.tls_cert is None:
            await port.send_goaway_to_all(limit_s=GOAWAY_LIMIT_S)
        else:
            oldest_s = listener.connection_age_s(self._settings) * listener.MAX_AGE_SPREAD
            await port.wait_until_left(limit_s=min(oldest_s, self._settings.drain_timeout_s))
        await self._dispatcher.open_calls.arrivals.wait_until_idle()

    async def drain(self) -> int:
        """Refuses new calls, says NOT_SERVING, and waits for those in flight, up to the drain timeout.

        It refuses calls as long as they come, for a while: each is told so, and may be sent elsewhere.

        Returns:
            How many calls had not ended by then.

        """
        self._set_stage(Stage.DRAINING)
        await self._health.set_serving(False, *self._health_names())
        admissions = [entry.engine.admission for entry in self.catalog.entries]
        logger.info("draining: %d calls in flight", sum(admission.admitted_calls for admission in admissions))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await asyncio.gather(
                    self._dispatcher.open_calls.end_streams(), *(each.wait_until_empty() for each in admissions)
                )
                await self._dispatcher.open_calls.arrivals.wait_until_idle()
        return sum(admission.admitted_calls + admission.unsent_responses for admission in admissions)

    async def stop(self) -> None:
        """Closes the port and every connection; calls that are still in flight end with UNAVAILABLE."""
        for entry in self.catalog.entries:
            entry.engine.threads.close()
        self._dispatcher.end_all()
        await self._grpc.stop(FLUSH_S)


def _names(entry: Entry) -> tuple[str, ...]:
    """What health checks call a model: by its name, and by its version if it has one."""
    return tuple(dict.fromkeys((entry.name, entry.label))) if entry.name else ()
