"""One server from start to end: listen, load, serve, drain, stop.

Rule of this module: it puts the parts together and holds the order of things; each part does its own
work. Nothing happens at import.
"""

import asyncio
import contextlib
import gc
import logging
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import grpc

from mlflow_grpc import logs
from mlflow_grpc.engine.admission import Admission, Stage
from mlflow_grpc.engine.execution import Engine, Plain
from mlflow_grpc.engine.threads import ModelThreads
from mlflow_grpc.hosting.model import HostedModel
from mlflow_grpc.payload.codec import Codec, TextCodec
from mlflow_grpc.services import health, listener, reflection, text
from mlflow_grpc.services.calls import Calls
from mlflow_grpc.settings import Payload, Settings

logger = logging.getLogger(__name__)

FLUSH_S = 2.0
"""How long gRPC may take to send the last answers once no call is left, in seconds."""

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter while another waits for it, in seconds; Python's default is 0.005."""

HEALTH_INTERVAL_S = 1.0
"""How often the server looks whether hung calls hold all of its threads, in seconds."""


class Server:
    """A server for one model. Used once: start, serve, stop."""

    def __init__(self, settings: Settings, *, share_port: bool = False) -> None:
        self._settings = settings
        self._threads = ModelThreads(settings.threads)
        self._admission = Admission(most_calls=settings.queue_calls, most_bytes=settings.queue_bytes)
        self._engine = Engine(self._threads, self._admission, timeout_s=settings.timeout_s)
        self._calls = Calls()
        self.services: tuple[str, ...] = (text.NAME, health.NAME)
        self._health = health.HealthServicer(self.services)
        handlers = [text.handlers(self._calls, self._engine), health.handlers(self._calls, self._health)]
        if settings.reflection:
            handlers += reflection.handlers(self._calls, self.services)
            self.services = (*self.services, reflection.NAME_V1, reflection.NAME)
        self._grpc: grpc.aio.Server = listener.make_server(settings, handlers, share_port=share_port)
        self.port = 0

    async def start(self) -> None:
        """Listens. Health answers NOT_SERVING and predict UNAVAILABLE until a model is loaded.

        Raises:
            StartError: The address is taken, or the TLS files are no good.

        """
        await self._health.set_serving(False)
        self.port = listener.listen(self._grpc, self._settings)
        await self._grpc.start()

    async def load(self) -> None:
        """Loads the model, in a thread of its own.

        Raises:
            StartError: The model cannot be served.

        """
        self.host(*await in_daemon_thread(lambda: load_model(self._settings)))
        # What is there now stays: a full collection that goes through all of MLflow's modules takes 0.1 s, in which
        # no call is answered.
        gc.collect()
        gc.freeze()

    def host(self, model: HostedModel, codec: Codec, plain: Plain | None = None) -> None:
        """Gives the server a loaded model."""
        self._engine.host(model, codec, plain)

    async def open(self) -> None:
        """Takes calls from now on, unless the server is draining already."""
        if self._admission.stage is Stage.LOADING:
            self._admission.stage = Stage.OPEN
            await self._health.set_serving(True)

    @property
    def ready_line(self) -> str:
        """Says in one line what is served where."""
        model = self._engine.describe()
        return f"ready: model {model} on {self.address}, services {', '.join(self.services)}"

    @property
    def address(self) -> str:
        """Where the server listens, as a client writes it."""
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        return f"{host}:{self.port}"

    async def watch_threads(self) -> None:
        """Says NOT_SERVING while hung calls hold every thread, so that an orchestrator can act; for ever."""
        was_stuck = False
        while True:
            await asyncio.sleep(HEALTH_INTERVAL_S)
            stuck = self._threads.stuck
            if stuck != was_stuck and self._admission.stage is Stage.OPEN:
                was_stuck = stuck
                await self._health.set_serving(not stuck)
                if stuck:
                    logger.error("every thread is held by a call that does not end: not serving, restart the server")
                else:
                    logger.info("threads are free again: serving")

    async def drain(self) -> int:
        """Refuses new calls, says NOT_SERVING, and waits for those in flight, up to the drain timeout.

        Returns:
            How many calls had not ended by then.

        """
        self._admission.stage = Stage.DRAINING
        await self._health.set_serving(False)
        logger.info("draining: %d calls in flight", self._admission.in_flight)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._admission.wait_until_empty(), self._settings.drain_timeout_s)
        return self._admission.in_flight

    async def stop(self) -> None:
        """Closes the port and every connection; calls that are still in flight end with UNAVAILABLE."""
        self._threads.close()
        self._calls.end_all()
        await self._grpc.stop(FLUSH_S)


@dataclass(frozen=True)
class Role:
    """What sets one process of a server apart; the defaults are those of a server of one process."""

    share_port: bool = False
    """Other processes listen on the same port."""
    load_first: bool = False
    """Listen once the model is loaded, because others answer meanwhile; else at once, to answer health checks."""
    signals: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT)
    """The signals that drain the server."""


def run(serving: Coroutine[Any, Any, int]) -> int:
    """Runs `serve` in an event loop of its own: uvloop's, where there is one."""
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):  # uvloop is not made for every platform.
        import uvloop

        loop_factory = uvloop.new_event_loop
    # The event loop and the thread that runs the model take turns at the interpreter; by default each may keep it
    # for 5 ms, which is several times what a call takes.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(serving)


async def serve(
    settings: Settings, *, role: Role | None = None, when_loaded: Callable[[Server], Awaitable[None]]
) -> int:
    """Runs a server until a signal ends it: the first drains it, a second one ends the wait.

    Args:
        settings: How to run it.
        role: For one process of several.
        when_loaded: Awaited between loading the model and opening for calls.

    Returns:
        The process's exit code: 0, or 128 + signal if a second signal came.

    Raises:
        StartError: The server could not start; nothing is left running but, it may be, a thread that loads.

    """
    role = role or Role()
    loop = asyncio.get_running_loop()
    signals: asyncio.Queue[int] = asyncio.Queue()
    for number in role.signals:
        loop.add_signal_handler(number, signals.put_nowait, number)
    server = Server(settings, share_port=role.share_port)
    first = asyncio.create_task(signals.get())
    opening = asyncio.create_task(_open(server, role, when_loaded))
    try:
        await asyncio.wait({opening, first}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            await opening
            watching = asyncio.create_task(server.watch_threads())
            await first
            watching.cancel()
        else:
            opening.cancel()
        draining = asyncio.create_task(server.drain())
        second = asyncio.create_task(signals.get())
        await asyncio.wait({draining, second}, return_when=asyncio.FIRST_COMPLETED)
        if second.done():
            logger.warning("second signal: ending at once")
            return 128 + second.result()
        second.cancel()
        if lost := await draining:
            logger.warning("drain timeout of %g s: %d calls had not ended", settings.drain_timeout_s, lost)
        return 0
    finally:
        await server.stop()


async def _open(server: Server, role: Role, when_loaded: Callable[[Server], Awaitable[None]]) -> None:
    if role.load_first:
        await server.load()
        await server.start()
    else:
        await server.start()
        await server.load()
    await when_loaded(server)
    await server.open()


def load_model(settings: Settings) -> tuple[HostedModel, Codec, Plain | None]:
    """The model that the settings name, with the codec for its payloads and its fast way, if it has one.

    MLflow is imported here: it takes seconds, in which the server can already answer health checks.

    Raises:
        StartError: The model cannot be served.

    """
    from mlflow_grpc.engine import rows
    from mlflow_grpc.hosting import mlflow_internals, pyfunc
    from mlflow_grpc.payload.plain import decoder_for
    from mlflow_grpc.payload.scoring import ScoringCodec

    logs.adopt()
    logs.quiet(mlflow_internals.CHATTY_LOGGERS)
    model = pyfunc.load(
        settings.model_uri,
        name=settings.model_name,
        config=settings.pyfunc_config,
        requirements=settings.requirements,
    )
    logs.adopt()
    if settings.payload is Payload.TEXT:
        return model, TextCodec(), None
    codec = ScoringCodec(model.metadata, model.loader_module)
    decoder = decoder_for(model.metadata)
    if decoder is None:
        logger.info("batching off: the signature is not one of plain columns or a plain tensor")
        return model, codec, None
    samples = decoder.samples(model.example)
    if samples and model.try_arrays(decoder.table(samples)):
        logger.info("scikit-learn is given arrays: it answers as it does to frames")
    runner = rows.RowRunner(model, decoder, codec)
    batched, reason = rows.decide(settings.batching, model, runner, samples)
    logger.info("batching %s: %s", "on" if batched else "off", reason)
    if not batched and not model.rows_are_independent:
        return model, codec, Plain(decoder)
    return model, codec, Plain(decoder, runner, settings.batch_rows if batched else 1, settings.batch_wait_s)


async def in_daemon_thread(function: Callable[[], Any]) -> Any:
    """Runs a function in a thread that cannot hold up the exit, as the threads of an executor do."""
    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001 - it is handed to the waiter
            outcome.set_exception(error)

    threading.Thread(target=run, name="load-model", daemon=True).start()
    return await asyncio.wrap_future(outcome)
