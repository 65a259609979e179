"""The order of events in the life of a server, from start to the end after a signal.

1. Listen. Health is NOT_SERVING, and calls are UNAVAILABLE. A worker that replaces another one loads before it listens.
2. Load the models. A model takes calls as soon as it is ready.
3. Open: health is SERVING, and the ready line is written.
4. Serve until a signal.
5. Lame duck: health is NOT_SERVING and calls are answered, for `--lame-duck` seconds after SIGTERM; then the port is
   closed and clients are sent away. A worker that another one has replaced sends clients away at once, and its health
   stays SERVING meanwhile.
6. Drain: new calls are refused, and those in flight are answered, up to `--drain-timeout`. Another signal ends the
   wait.
7. Stop.

An error at the start, or in what watches the server, leads to step 5 like a signal.

Rule of this module: it holds the order. `mlflow_grpc.lifecycle` has the steps.
"""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from mlflow_grpc.config import Configuration
from mlflow_grpc.lifecycle import Server
from mlflow_grpc.main_thread import MainThread
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.process import (
    END_REPLACED,
    ending_signals,
    is_second_signal,
    reset_signals_after_fork,
    shutdown_notice,
)
from mlflow_grpc.registry_versions import RegistryVersions
from mlflow_grpc.rollout.supervisor_link import SupervisorLink
from mlflow_grpc.settings import Settings
from mlflow_grpc.telemetry.metrics import ALONE, MetricsSlot

logger = get_logger(__name__)

SWITCH_INTERVAL_S = 0.0001
"""Maximum time that a thread keeps the interpreter while another waits for it, in seconds; Python's default is 0.005.
"""


@dataclass(frozen=True)
class Role:
    """Differences of one worker process from a single-process server, which has the defaults."""

    share_port: bool = False
    """True if other processes listen on the same port."""
    load_first: bool = False
    """True to listen only once the models are loaded, because other workers answer meanwhile. False to listen at once,
    so that health checks are answered."""
    signals: tuple[signal.Signals, ...] = field(default_factory=ending_signals)
    """Signals that drain the server."""
    is_supervised: bool = False
    """True if a second signal has no effect here, because the supervisor ends the wait. systemd sends SIGTERM to all
    processes of a service, so a worker gets one from systemd and one from its supervisor."""
    slot: MetricsSlot = ALONE
    """The process's slot in the metrics of the server."""
    versions: RegistryVersions = field(default_factory=RegistryVersions)
    """Versions that aliases mean to all processes of the server."""
    link: SupervisorLink | None = None
    """Connection to the supervisor; None if there is none."""
    when_loading: Callable[[str], object] = lambda _: None
    """Called with a description of each model when its load begins, and with an empty text when it has ended."""


def run(
    settings: Settings,
    configuration: Configuration,
    *,
    role: Role | None = None,
    when_loaded: Callable[[Server], Awaitable[None]],
) -> int:
    """Runs a server until a signal ends it; the first signal drains it, a second one ends the wait.

    Called in the main thread, which loads the models. Calls are answered in an event loop in another thread (uvloop's,
    where available).

    Args:
        settings: Settings of the server.
        configuration: Models of the server.
        role: Differences of a worker process.
        when_loaded: Awaited after the models are loaded, and before the server reports that it is ready.

    Returns:
        The exit code: 0; 128 + signal if a second signal arrived; 1 if the watch of the server failed.

    Raises:
        StartError: The server could not start. Everything has been stopped, except possibly a thread that fetches a
            model.
    """
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):  # uvloop is not available for every platform.
        import uvloop

        loop_factory = uvloop.new_event_loop
    # The event loop and the model's thread take turns at the interpreter. By default each may keep it for 5 ms, several
    # times the duration of a call.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    role = role or Role()
    main = MainThread(role.signals)
    reset_signals_after_fork(role.signals)
    return main.run(_serve(settings, configuration, main, role, when_loaded), loop_factory)


async def _serve(
    settings: Settings,
    configuration: Configuration,
    main: MainThread,
    role: Role,
    when_loaded: Callable[[Server], Awaitable[None]],
) -> int:
    """Runs a server from start to stop, in the order of the module's docstring."""
    server = Server(
        settings,
        configuration,
        share_port=role.share_port,
        slot=role.slot,
        versions=role.versions,
        link=role.link,
    )
    first = asyncio.create_task(main.next_signal())
    opening = asyncio.create_task(_open(server, main, role, when_loaded))
    watching = asyncio.create_task(server.watch())
    try:
        failed = await _until_signal_or_error(first, opening, watching)
        opening.cancel()
        watching.cancel()
        if failed is None:
            if not role.is_supervised:
                logger.info("%s", shutdown_notice(first.result(), "ending once the calls in flight have ended"))
            second = asyncio.create_task(_second(main, role, first.result()))
            return await _end(server, settings, first.result(), interrupt=second)
        if failed is watching:
            logger.error("the server cannot watch itself any more, and ends", exc_info=failed.exception())
        if failed is watching or server.takes_calls:
            await _end(server, settings, signal.SIGTERM if failed is watching else signal.SIGINT, interrupt=first)
        if failed is opening:
            await opening  # Raises its error.
        return 1
    finally:
        await server.stop()


async def _open(server: Server, main: MainThread, role: Role, when_loaded: Callable[[Server], Awaitable[None]]) -> None:
    """Starts to listen and loads the models, or the other way round, and opens the server."""
    if role.load_first:
        await server.load(main, role.when_loading)
        await server.start()
    else:
        await server.start()
        await server.load(main, role.when_loading)
    await when_loaded(server)
    server.open()


async def _until_signal_or_error(
    first: "asyncio.Task[int]", *tasks: "asyncio.Task[None]"
) -> "asyncio.Task[None] | None":
    """Waits for a signal, or for an exception of a task; returns that task, or None after a signal."""
    waiting: set[asyncio.Task[Any]] = {first, *tasks}
    while True:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if first in done:
            return None
        # A signal cancels the function in the main thread before it is reported here.
        for task in done:
            if not task.cancelled() and task.exception() is not None:
                return task


async def _end(server: Server, settings: Settings, number: int, *, interrupt: "asyncio.Task[int]") -> int:
    """Sends callers away if there may be any, and drains.

    Args:
        server: The server.
        settings: The settings with its time limits.
        number: Number of the signal. After SIGTERM, calls are answered as before for some time.
        interrupt: Waits for a signal that ends the wait.

    Returns:
        The exit code: 0, or 128 + signal.

    """

    async def end() -> None:
        limit_s = settings.drain_timeout_s
        if server.takes_calls and number == END_REPLACED:
            limit_s = await server.hand_over()
        elif server.takes_calls:
            await server.lame_duck(settings.lame_duck_s if number == signal.SIGTERM else 0.0)
        if lost := await server.drain(limit_s):
            logger.warning("drain timeout of %g s: %d calls had not ended", settings.drain_timeout_s, lost)

    ending = asyncio.create_task(end())
    await asyncio.wait({ending, interrupt}, return_when=asyncio.FIRST_COMPLETED)
    if interrupt.done():
        logger.warning("signal during the shutdown: ending at once")
        ending.cancel()
        return 128 + interrupt.result()
    interrupt.cancel()
    await ending
    return 0


async def _second(main: MainThread, role: Role, first: int) -> int:
    """Waits for a second signal that counts, and returns its number."""
    began = time.monotonic()
    while True:
        number = await main.next_signal()
        if not role.is_supervised and is_second_signal(number, first, time.monotonic() - began):
            return number
