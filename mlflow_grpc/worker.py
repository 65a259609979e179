"""One worker process, after it was forked: runs a server, and reports to the supervisor.

Rule of this module: like the supervisor's, it imports grpc inside of functions.
"""

import os
import signal
import socket
import threading
from multiprocessing.connection import Connection, wait
from typing import NoReturn

from mlflow_grpc import logs
from mlflow_grpc.config import Configuration
from mlflow_grpc.daemon_threads import in_daemon_thread
from mlflow_grpc.errors import StartError
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.process import END_REPLACED, END_WITHOUT_LAME_DUCK, end_process
from mlflow_grpc.registry_versions import RegistryVersions
from mlflow_grpc.rollout.supervisor_link import SupervisorLink
from mlflow_grpc.settings import Settings
from mlflow_grpc.telemetry.metrics import MetricsSlot

logger = get_logger(__name__)

LOADING, LOADED, OPEN, OPENED, FAILED = "loading", "loaded", "open", "opened", "failed"
"""Messages in a worker's pipe: it loads a model or has loaded it, all are loaded, it may open, it has opened, it has
failed. Those of `mlflow_grpc.rollout.supervisor_link` follow once it has opened."""


def run_worker(
    settings: Settings,
    configuration: Configuration,
    pipe: Connection,
    lifeline: socket.socket,
    slot: MetricsSlot,
    versions: RegistryVersions,
    *,
    replaces: bool,
    predecessor: bytes,
) -> NoReturn:
    """Runs a worker until a signal ends it, and ends the process.

    Args:
        settings: Settings of the server, with its ports.
        configuration: Models of the server.
        pipe: Its connection to the supervisor.
        lifeline: Socket whose other end closes when the supervisor ends.
        slot: Its slot in the metrics of all workers.
        versions: Versions that aliases mean to all workers.
        replaces: True if it replaces a worker, which may have ended.
        predecessor: What a worker served that serves until this one does; empty if there is no such worker.

    """
    logs.configure(
        settings.log_format,
        settings.log_level,
        libraries=settings.log_level_libraries,
        worker=slot.worker,
        extra=configuration.logging,
    )
    threading.Thread(target=_end_with_supervisor, args=(lifeline,), name="watch-supervisor", daemon=True).start()
    # Imported here, because the supervisor must not import grpc.
    from mlflow_grpc import lifecycle, runner

    link = SupervisorLink(pipe, predecessor)

    async def when_loaded(server: lifecycle.Server) -> None:
        pipe.send((LOADED, "", 0))
        await in_daemon_thread(pipe.recv, "wait-to-open")
        server.open()
        pipe.send((OPENED, f"{server.ready_line}\n{settings.page_line(server.http_url)}", 0))
        link.open()
        await link.leave()

    role = runner.Role(
        share_port=True,
        load_first=replaces,
        signals=(signal.SIGTERM, END_WITHOUT_LAME_DUCK, END_REPLACED),
        is_supervised=True,
        slot=slot,
        versions=versions,
        link=link,
        when_loading=lambda description: pipe.send((LOADING, description, 0)),
    )
    try:
        code = runner.run(settings, configuration, role=role, when_loaded=when_loaded)
    except StartError as error:
        pipe.send((FAILED, str(error), error.exit_code))
        code = error.exit_code
    except (EOFError, BrokenPipeError):
        code = 1  # The supervisor ended while this worker was starting.
    end_process(code)


def _end_with_supervisor(lifeline: socket.socket) -> None:
    """Ends this process when the supervisor has ended."""
    wait([lifeline])
    logger.error("the supervisor has gone")
    os.kill(os.getpid(), signal.SIGTERM)
