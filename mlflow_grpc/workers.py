"""Worker processes that share one port, and their supervisor.

Rule of this module: the supervisor serves nothing and does not import grpc, because a gRPC server does not survive a
fork. It imports MLflow, and workers are forked from it, so that they share that memory. Each worker loads the models
and listens on the same port (SO_REUSEPORT). The kernel distributes the connections.

It has more than 300 lines, because the supervisor is one state machine: start, replace, drain, stop.
"""

import gc
import multiprocessing
import os
import signal
import socket
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import NoReturn

from mlflow_grpc import logs
from mlflow_grpc.config import Configuration
from mlflow_grpc.errors import StartError
from mlflow_grpc.forks import Fork, leave_stdin, seed_again
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.process import END_WITHOUT_LAME_DUCK, ending_signals
from mlflow_grpc.registry_versions import RegistryVersions, Version, answer_worker
from mlflow_grpc.reserved_ports import reserve_ports
from mlflow_grpc.settings import Settings, spelling
from mlflow_grpc.telemetry.memory import Memory
from mlflow_grpc.worker import FAILED, LOADING, OPEN, OPENED, run_worker

logger = get_logger(__name__)

KILL_AFTER_S = 5.0
"""Time after the drain timeout until a worker is killed, in seconds."""

STABLE_S = 10.0
"""Time that a worker must have served calls to be replaced at once, in seconds; others are replaced with a delay."""

MAX_RESTART_DELAY_S = 30.0
"""Maximum delay before a worker is replaced, in seconds; the delay doubles with each failure."""

SENT_TO_ALL = (signal.SIGINT, signal.SIGHUP)
"""Signals that the terminal sends to the whole process group; the supervisor forwards what is meant for workers."""


@dataclass
class _Worker:
    number: int
    process: Fork
    pipe: Connection
    versions: Connection  # For the versions that aliases mean.
    loaded: bool = False
    serving_since: float | None = None  # When it began to serve calls.
    has_closed_pipe: bool = False
    has_closed_versions: bool = False
    loading: str = ""  # Description of the model that it loads now.
    reason: str = ""
    exit_code: int = 0

    def close(self) -> None:
        """Closes the connections to it."""
        self.pipe.close()
        self.versions.close()

    def end(self, code: int | None) -> str:
        """Describes how it ended."""
        during = f" while it loaded {self.loading}" if self.loading else ""
        return f"ended with code {code}{during}{f' ({self.reason})' if self.reason else ''}"


class _InChild(BaseException):
    """Raised in a forked process, so that it leaves the supervisor's loop."""

    def __init__(self, number: int, pipe: Connection, versions: Connection) -> None:
        super().__init__()
        self.number = number
        self.pipe = pipe
        self.versions = versions


def supervise(settings: Settings, configuration: Configuration) -> int:
    """Runs `settings.workers` workers until a signal ends them.

    Returns:
        The exit code: 0, or 128 + signal if a second signal came.

    Raises:
        StartError: A worker could not start; the others are stopped.

    """
    supervisor = _Supervisor(settings, configuration)
    try:
        return supervisor.run()
    except _InChild as in_child:
        child = in_child
    return supervisor.work(child.number, child.pipe, child.versions)


class _Supervisor:
    """Watches pipes and processes in one loop; each step handles one event."""

    def __init__(self, settings: Settings, configuration: Configuration) -> None:
        self._configuration = configuration
        self._count = settings.workers
        self._reserved, self._settings = reserve_ports(settings)
        self._workers: dict[int, _Worker] = {}
        self._memory = Memory(workers=settings.workers, models=len(configuration.models))
        self._versions: dict[str, Version] = {}
        self._restart_delays: dict[int, float] = {}
        self._restart_at: dict[int, float] = {}
        self._opened = self._announced = False
        self._is_supervisor = True
        self._awaited = (*ending_signals(), signal.SIGCHLD)
        # Workers inherit the second socket, which closes when this process ends.
        self._lifeline_end, self._lifeline = socket.socketpair()
        self._wakeup, self._signalled = socket.socketpair()
        self._wakeup.setblocking(False)
        self._signalled.setblocking(False)

    def run(self) -> int:
        previous = {number: signal.signal(number, lambda *_: None) for number in self._awaited}
        # It ends workers that do not handle it yet, also if the parent ignores it, as `perf record` does.
        previous[END_WITHOUT_LAME_DUCK] = signal.signal(END_WITHOUT_LAME_DUCK, signal.SIG_DFL)
        previous_fd = signal.set_wakeup_fd(self._signalled.fileno())
        try:
            _import_libraries(self._configuration)
            first = self._pending_signal()
            for number in range(self._count if first is None else 0):
                self._start_first(number)
            while first is None:
                first = self._step()
            second = self._end_all(first)
            return 128 + second if second else 0
        except _InChild:
            self._is_supervisor = False
            raise
        except StartError:
            self._end_all(signal.SIGINT)
            raise
        finally:
            if self._is_supervisor:
                self._kill_all()
                signal.set_wakeup_fd(previous_fd)
                for number, handler in previous.items():
                    signal.signal(number, handler)
                for end in (*self._reserved, self._lifeline_end, self._lifeline, self._wakeup, self._signalled):
                    end.close()

    def _start_first(self, number: int) -> None:
        """Starts a worker at the start of the server.

        Raises:
            StartError: The machine has no room for it.

        """
        try:
            self._start(number)
        except OSError as error:
            raise StartError(
                f"worker {number} cannot be started: {error.strerror or error}; allow more processes and open files, "
                f"or start fewer workers with {spelling('workers')}"
            ) from error

    def _start(self, number: int) -> None:
        with ExitStack() as ends_on_error:
            pipes = [multiprocessing.Pipe(), multiprocessing.Pipe()]
            for end in (*pipes[0], *pipes[1]):
                ends_on_error.callback(end.close)
            process = Fork.start((*self._awaited, *SENT_TO_ALL))
            ends_on_error.pop_all()
        (supervisor_end, worker_end), (supervisor_versions, worker_versions) = pipes
        if process is None:
            supervisor_end.close()
            supervisor_versions.close()
            raise _InChild(number, worker_end, worker_versions)
        worker_end.close()
        worker_versions.close()
        self._workers[number] = _Worker(number, process, supervisor_end, supervisor_versions)
        logger.info("worker %d started, pid %d", number, process.pid)

    def work(self, number: int, pipe: Connection, versions: Connection) -> NoReturn:
        """Releases the supervisor's resources in a forked process, and runs a worker until it ends."""
        signal.set_wakeup_fd(-1)
        for awaited in self._awaited:
            signal.signal(awaited, signal.SIG_DFL)
        for ignored in SENT_TO_ALL:
            signal.signal(ignored, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*self._awaited, *SENT_TO_ALL})
        for inherited in (*self._reserved, self._lifeline_end, self._wakeup, self._signalled):
            inherited.close()
        for worker in self._workers.values():
            worker.close()
        leave_stdin()
        seed_again()
        run_worker(
            self._settings,
            self._configuration,
            number,
            pipe,
            self._lifeline,
            self._memory,
            RegistryVersions(self._versions, versions),
            replaces=self._opened,
        )

    def _pending_signal(self) -> int | None:
        """Returns the number of a pending signal that ends the server; None if there is none."""
        while wait([self._wakeup], 0):
            number: int = self._wakeup.recv(1)[0]
            if number != signal.SIGCHLD:  # Processes send it that libraries run when they are imported.
                return number
        return None

    def _step(self) -> int | None:
        """Waits for an event and handles it; returns the number of a signal that ends the server.

        SIGCHLD reports that a worker has ended. Its sentinel, a pipe, may be kept open by processes that its model
        forked.
        """
        timeout_s = max(0.0, min(self._restart_at.values()) - time.monotonic()) if self._restart_at else None
        pipes = [worker.pipe for worker in self._workers.values() if not worker.has_closed_pipe]
        pipes += [worker.versions for worker in self._workers.values() if not worker.has_closed_versions]
        ready = wait([self._wakeup, *pipes], timeout_s)
        if self._wakeup in ready and (number := self._wakeup.recv(1)[0]) != signal.SIGCHLD:
            return number
        for worker in list(self._workers.values()):
            ended = worker.process.exitcode is not None
            if worker.pipe in ready or ended:
                self._read_messages(worker)
            if worker.versions in ready:
                self._answer(worker)
            if ended:
                self._reap(worker)
        for number in [number for number, at in self._restart_at.items() if at <= time.monotonic()]:
            del self._restart_at[number]
            self._restart(number)
        return None

    def _read_messages(self, worker: _Worker) -> None:
        """Reads a worker's messages: what it loads, that it is loaded, that it serves calls, or why it cannot."""
        try:
            while worker.pipe.poll():
                message, text, worker.exit_code = worker.pipe.recv()
                if message == LOADING:
                    worker.loading = text
                elif message == FAILED:
                    worker.reason = text
                elif message == OPENED:
                    worker.serving_since = time.monotonic()
                    self._announce(text)
                else:
                    self._open(worker)
        except (EOFError, OSError):
            worker.has_closed_pipe = True

    def _answer(self, worker: _Worker) -> None:
        """Tells a worker which version an alias means."""
        try:
            answer_worker(worker.versions, self._versions)
        except (EOFError, OSError):
            worker.has_closed_versions = True

    def _announce(self, lines: str) -> None:
        """Writes the ready line, and the line about the page if there is one, once all workers serve calls."""
        serving = [worker for worker in self._workers.values() if worker.serving_since is not None]
        if len(serving) == self._count and not self._announced:
            self._announced = True
            ready_line, page_line = lines.split("\n")
            for line in filter(None, (f"{ready_line}, {self._count} workers", page_line)):
                logs.announce(line, self._settings.log_format, sys.stdout)

    def _open(self, worker: _Worker) -> None:
        """Opens a loaded worker: at once if others are open, otherwise when all are loaded."""
        worker.loaded = True
        if self._opened:
            worker.pipe.send(OPEN)
        elif len(self._workers) == self._count and all(loaded.loaded for loaded in self._workers.values()):
            self._opened = True
            for waiting in self._workers.values():
                with suppress(OSError):  # It has ended meanwhile, which the next step handles.
                    waiting.pipe.send(OPEN)

    def _reap(self, worker: _Worker) -> None:
        """Handles a worker that has ended by itself: at the start the server fails, later the worker is replaced."""
        worker.close()
        del self._workers[worker.number]
        self._memory.reset_gauges(worker.number)
        code = worker.process.exitcode
        if not self._opened:
            error = StartError(f"worker {worker.number} cannot start: {worker.reason or f'it {worker.end(code)}'}")
            error.exit_code = worker.exit_code or 2
            raise error
        # Measured from its first call, because loading may take long and fail each time.
        if worker.serving_since is not None and time.monotonic() - worker.serving_since > STABLE_S:
            self._restart_delays.pop(worker.number, None)
        delay_s = self._schedule_restart(worker.number)
        logger.error(
            "worker %d (pid %d) %s; a new one starts in %g s",
            worker.number,
            worker.process.pid,
            worker.end(code),
            delay_s,
        )

    def _restart(self, number: int) -> None:
        """Starts a worker to replace one that has ended; later, if the machine has no room for it now."""
        try:
            self._start(number)
        except OSError as error:
            delay_s = self._schedule_restart(number)
            logger.error("worker %d cannot be started: %s; again in %g s", number, error, delay_s)  # noqa: TRY400

    def _schedule_restart(self, number: int) -> float:
        """Schedules the restart of a worker and returns its delay, in seconds; the next delay is longer."""
        delay_s = self._restart_delays.get(number, 0.0)
        self._restart_delays[number] = min(MAX_RESTART_DELAY_S, max(1.0, delay_s * 2))
        self._restart_at[number] = time.monotonic() + delay_s
        return delay_s

    def _end_all(self, first: int) -> int | None:
        """Drains the workers; returns the number of a second signal, which ends the wait.

        Args:
            first: Number of the first signal.

        """
        logger.info("draining %d workers", len(self._workers))
        has_lame_duck = first == signal.SIGTERM
        for process in [worker.process for worker in self._workers.values()]:
            if process.exitcode is None:
                os.kill(process.pid, signal.SIGTERM if has_lame_duck else END_WITHOUT_LAME_DUCK)
        limit_s = self._settings.drain_timeout_s + KILL_AFTER_S
        deadline = time.monotonic() + limit_s + (self._settings.lame_duck_s if has_lame_duck else 0)
        while True:
            for ended in [worker for worker in self._workers.values() if worker.process.exitcode is not None]:
                del self._workers[ended.number]
            left_s = deadline - time.monotonic()
            if not self._workers or left_s <= 0:
                return None
            if wait([self._wakeup], left_s):
                number = self._wakeup.recv(1)[0]
                if number not in (signal.SIGHUP, signal.SIGCHLD):
                    return number

    def _kill_all(self) -> None:
        for worker in self._workers.values():
            logger.warning("worker %d did not end and is killed", worker.number)
            worker.process.kill()
        for worker in self._workers.values():
            worker.process.join()


def _import_libraries(configuration: Configuration) -> None:
    """Imports the libraries that all workers share; not on macOS, which forbids a fork after such imports."""
    from mlflow_grpc.engine import loading

    if sys.platform != "darwin":
        with suppress(ImportError):  # The workers raise it again and report it.
            loading.import_libraries(configuration.models)
        gc.collect()
        gc.freeze()
