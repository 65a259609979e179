"""Runs a server in this process until a signal ends it.

Rule of this module: it holds the order of start and shutdown, and knows nothing of calls.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from mlflow_grpc.config import Configuration
from mlflow_grpc.errors import StartError
from mlflow_grpc.lifecycle import Server
from mlflow_grpc.main_thread import MainThread
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.process import ending_signals, reset_signals_after_fork
from mlflow_grpc.settings import Settings
from mlflow_grpc.telemetry.metrics import ALONE, MetricsSlot

logger = get_logger(__name__)

SWITCH_INTERVAL_S = 0.0005
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
    slot: MetricsSlot = ALONE
    """The process's slot in the metrics of the server."""


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
        The exit code: 0, or 128 + signal if a second signal arrived.

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
    server = Server(settings, configuration, share_port=role.share_port, slot=role.slot)
    first = asyncio.create_task(main.next_signal())
    opening = asyncio.create_task(_open(server, main, role, when_loaded))
    watching = asyncio.create_task(server.watch())
    try:
        await asyncio.wait({opening, first}, return_when=asyncio.FIRST_COMPLETED)
        if not first.done():
            try:
                await opening
            except StartError:
                if server.takes_calls:
                    await server.drain()
                raise
            await first
        else:
            opening.cancel()
        watching.cancel()
        lame_duck_s = settings.lame_duck_s if first.result() == signal.SIGTERM else 0.0
        ending = asyncio.create_task(_end(server, lame_duck_s))
        second = asyncio.create_task(_second(main))
        await asyncio.wait({ending, second}, return_when=asyncio.FIRST_COMPLETED)
        if second.done():
            logger.warning("second signal: ending at once")
            return 128 + second.result()
        second.cancel()
        if lost := await ending:
            logger.warning("drain timeout of %g s: %d calls had not ended", settings.drain_timeout_s, lost)
        return 0
    finally:
        await server.stop()


async def _end(server: Server, lame_duck_s: float) -> int:
    """Runs the lame duck phase if there may be callers, drains, and returns the number of unfinished calls."""
    if server.takes_calls:
        await server.lame_duck(lame_duck_s)
    return await server.drain()


async def _second(main: MainThread) -> int:
    while (number := await main.next_signal()) == signal.SIGHUP:
        pass
    return number


async def _open(server: Server, main: MainThread, role: Role, when_loaded: Callable[[Server], Awaitable[None]]) -> None:
    if role.load_first:
        await server.load(main)
        await server.start()
    else:
        await server.start()
        await server.load(main)
    await when_loaded(server)
    await server.open()
