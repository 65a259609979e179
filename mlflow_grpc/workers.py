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
from itertools import count
from multiprocessing.connection import Connection, wait
from typing import NoReturn

from mlflow_grpc import logs
from mlflow_grpc import worker as worker_messages
from mlflow_grpc.config import Configuration
from mlflow_grpc.errors import StartError
from mlflow_grpc.forks import Fork, leave_stdin, seed_again
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.process import END_WITHOUT_LAME_DUCK, ending_signals, is_second_signal, shutdown_notice
from mlflow_grpc.registry_versions import RegistryVersions, Version, answer_worker
from mlflow_grpc.replacements import KILL_AFTER_S, Replacements
from mlflow_grpc.reserved_ports import reserve_ports
from mlflow_grpc.rollout import supervisor_link
from mlflow_grpc.rollout.config_file import ConfigurationFile
from mlflow_grpc.rollout.configuration import may_replace_workers
from mlflow_grpc.rollout.model_regions import SPARE_MODELS, ModelRegions
from mlflow_grpc.settings import Settings, spelling
from mlflow_grpc.telemetry.configuration_metrics import ConfigurationMetrics
from mlflow_grpc.telemetry.instruments import Instruments
from mlflow_grpc.telemetry.memory import Memory
from mlflow_grpc.telemetry.metrics import MetricsSlot
from mlflow_grpc.worker import OPEN, run_worker
from mlflow_grpc.worker_handle import WorkerHandle, WorkerStart

logger = get_logger(__name__)

STABLE_S = 10.0
"""Time that a worker must have served calls to be replaced at once, in seconds; others are replaced with a delay."""

MAX_RESTART_DELAY_S = 30.0
"""Maximum delay before a worker is replaced, in seconds; the delay doubles with each failure."""

SENT_TO_ALL = (signal.SIGINT, signal.SIGHUP)
"""Signals that the terminal sends to the whole process group; the supervisor forwards what is meant for workers."""


class _InChild(BaseException):
    """Raised in a forked process, so that it leaves the supervisor's loop."""

    def __init__(self, start: WorkerStart, pipe: Connection, versions: Connection) -> None:
        super().__init__()
        self.start = start
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
    return supervisor.work(child.start, child.pipe, child.versions)


class _Supervisor:
    """Watches pipes and processes in one loop; each step handles one event."""

    def __init__(self, settings: Settings, configuration: Configuration) -> None:
        self._count = settings.workers
        self._reserved, self._settings = reserve_ports(settings)
        self._workers: dict[int, WorkerHandle] = {}
        self._versions: dict[str, Version] = {}
        self._replacements = Replacements(
            *(configuration, self._workers, self._versions, self._start, self._free_number),
            drain_timeout_s=settings.drain_timeout_s,
        )
        is_watched = settings.config is not None and settings.watch_config_s is not None
        self._regions = ModelRegions(len(configuration.models) + (SPARE_MODELS if is_watched else 0))
        # One slot for a worker that loads while its predecessor serves, and one for this process.
        spare_slots = 2 if may_replace_workers(configuration, settings) else 0
        self._memory = Memory(workers=settings.workers, models=self._regions.count, spare_slots=spare_slots)
        if settings.config is not None and settings.watch_config_s is not None:
            metrics = ConfigurationMetrics(Instruments(self._memory, self._memory.slots - 1))
            self._replacements.watch(ConfigurationFile(settings.config, settings, settings.watch_config_s), metrics)
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
            _import_libraries(self._replacements.configuration)
            first = self._pending_signal()
            for number in range(self._count if first is None else 0):
                self._start_first(number)
            while first is None:
                first = self._step()
            logger.info("%s", shutdown_notice(first, f"draining {_counted(len(self._workers))}"))
            second = self._end_all(first)
            if second and self._workers:
                name = signal.Signals(second).name
                logger.warning("%s during the shutdown: %s killed", name, _counted(len(self._workers)))
            return 128 + second if second else 0
        except _InChild:
            self._is_supervisor = False
            raise
        except StartError:
            if self._workers:
                logger.info("ending %s, because another one cannot start", _counted(len(self._workers)))
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
            self._start(self._start_of(number))
        except OSError as error:
            raise StartError(
                f"worker {number} cannot be started: {error.strerror or error}; allow more processes and open files, "
                f"or start fewer workers with {spelling('workers')}"
            ) from error

    def _start_of(self, number: int) -> WorkerStart:
        return WorkerStart(number, self._replacements.configuration)

    def _free_number(self) -> int:
        return next(number for number in count() if number not in self._workers and number not in self._restart_at)

    def _start(self, start: WorkerStart) -> None:
        self._regions.of(start.configuration.models)  # Raises an error here instead of in the worker.
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
            raise _InChild(start, worker_end, worker_versions)
        worker_end.close()
        worker_versions.close()
        self._workers[start.number] = WorkerHandle(start, process, supervisor_end, supervisor_versions)
        logger.info("worker %d started, pid %d", start.number, process.pid)

    def work(self, start: WorkerStart, pipe: Connection, versions: Connection) -> NoReturn:
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
            start.configuration,
            pipe,
            self._lifeline,
            MetricsSlot(
                *(start.number, self._memory, self._regions.of(start.configuration.models)),
                is_file_watched=self._settings.watch_config_s is not None,
            ),
            RegistryVersions(self._versions | start.versions, versions),
            replaces=self._opened,
            predecessor=start.predecessor,
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
        times = [*self._restart_at.values(), *filter(None, [self._replacements.next_at])]
        timeout_s = max(0.0, min(times) - time.monotonic()) if times else None
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
        if self._announced:
            self._replacements.step()
        return None

    def _read_messages(self, worker: WorkerHandle) -> None:
        """Reads a worker's messages: what it loads or serves, why it cannot, or that it needs to be replaced."""
        try:
            while worker.pipe.poll():
                message, content, worker.exit_code = worker.pipe.recv()
                match message:
                    case worker_messages.LOADING:
                        worker.loading = content
                    case worker_messages.FAILED:
                        worker.reason = content
                    case worker_messages.LOADED:
                        self._open(worker)
                    case worker_messages.OPENED:
                        worker.serving_since = time.monotonic()
                        if self._announced and worker.start.replaces is None:
                            logger.info("worker %d serves, pid %d", worker.number, worker.process.pid)
                        self._replacements.has_opened(worker)
                        self._announce(content)
                    case supervisor_link.HANDOVER:
                        worker.served = content
                    case supervisor_link.REPLACE:
                        self._replacements.request(worker, *content)
        except (EOFError, OSError):
            worker.has_closed_pipe = True

    def _answer(self, worker: WorkerHandle) -> None:
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
            workers = f", {self._count} workers" if self._count > 1 else ""
            for line in filter(None, (f"{ready_line}{workers}", page_line)):
                logs.announce(line, self._settings.log_format, sys.stdout)

    def _open(self, worker: WorkerHandle) -> None:
        """Opens a loaded worker: at once if others are open, otherwise when all are loaded."""
        worker.loaded = True
        if self._opened:
            worker.pipe.send(OPEN)
        elif len(self._workers) == self._count and all(loaded.loaded for loaded in self._workers.values()):
            self._opened = True
            for waiting in self._workers.values():
                with suppress(OSError):  # It has ended meanwhile, which the next step handles.
                    waiting.pipe.send(OPEN)

    def _reap(self, worker: WorkerHandle) -> None:
        """Handles a worker that has ended by itself: at the start the server fails, later the worker is replaced."""
        worker.close()
        del self._workers[worker.number]
        self._memory.reset_gauges(worker.number)
        if self._replacements.has_ended(worker):
            return
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
            self._start(self._start_of(number))
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
        has_lame_duck = first == signal.SIGTERM
        for process in [worker.process for worker in self._workers.values() if worker.leaves_until is None]:
            if process.exitcode is None:
                os.kill(process.pid, signal.SIGTERM if has_lame_duck else END_WITHOUT_LAME_DUCK)
        limit_s = self._settings.drain_timeout_s + KILL_AFTER_S
        began = time.monotonic()
        deadline = began + limit_s + (self._settings.lame_duck_s if has_lame_duck else 0)
        while True:
            for ended in [worker for worker in self._workers.values() if worker.process.exitcode is not None]:
                del self._workers[ended.number]
            left_s = deadline - time.monotonic()
            if self._workers and left_s <= 0:
                logger.warning("%s did not end in time and will be killed", _counted(len(self._workers)))
            if not self._workers or left_s <= 0:
                return None
            if wait([self._wakeup], left_s):
                number = self._wakeup.recv(1)[0]
                if number != signal.SIGCHLD and is_second_signal(number, first, time.monotonic() - began):
                    return number

    def _kill_all(self) -> None:
        for worker in self._workers.values():
            worker.process.kill()
        for worker in self._workers.values():
            worker.process.join()


def _counted(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"


def _import_libraries(configuration: Configuration) -> None:
    """Does what is the same in all workers, mostly imports; not on macOS, which forbids a fork after such imports."""
    from mlflow_grpc.engine import loading

    if sys.platform != "darwin":
        with suppress(ImportError):  # The workers raise it again and report it.
            loading.import_libraries(configuration.models)
            if any(model.uri for model in configuration.models):
                from mlflow_grpc.hosting.pyfunc import requirements

                requirements.read_installed_packages()
        gc.collect()
        gc.freeze()
