"""N processes that share one port, and the process that looks after them.

Rule of this module: the supervisor serves nothing and does not import grpc (a server does not survive a fork, and its
threads would be in the way). It imports MLflow, and workers are forked from it: they share that memory. Each worker
loads the model and listens on the same port by SO_REUSEPORT; the kernel deals out the connections.
"""

import gc
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

from mlflow_grpc import logs
from mlflow_grpc.addresses import addresses_of
from mlflow_grpc.config import Configuration
from mlflow_grpc.errors import AddressUnavailable, StartError
from mlflow_grpc.forks import Fork, leave_stdin, seed_again
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.process import END_WITHOUT_LAME_DUCK, end_process, ending_signals, in_daemon_thread
from mlflow_grpc.settings import Settings, spelling

logger = get_logger(__name__)

KILL_AFTER_S = 5.0
"""How long after the drain timeout a worker may still be alive, in seconds, before it is killed."""

STABLE_S = 10.0
"""A worker that took calls for this long is replaced at once; one that did not waits, ever longer, in seconds."""

LONGEST_PAUSE_S = 30.0

SENT_TO_ALL = (signal.SIGINT, signal.SIGHUP)
"""What the terminal sends to the whole group; the supervisor passes on what is meant for the workers."""

LOADED, OPEN, OPENED, FAILED = "loaded", "open", "opened", "failed"
"""What is said in the pipe of a worker: by itself that it is loaded, to it that it may open, by itself that it has."""


@dataclass
class _Worker:
    number: int
    process: Fork
    pipe: Connection
    loaded: bool = False
    taking_since: float | None = None  # When it began to take calls.
    silent: bool = False  # It has closed its end of the pipe.
    reason: str = ""
    exit_code: int = 0


class _InChild(BaseException):
    """Raised in a forked process, so that it leaves what the supervisor is doing."""

    def __init__(self, number: int, pipe: Connection) -> None:
        super().__init__()
        self.number = number
        self.pipe = pipe


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
    return supervisor.work(child.number, child.pipe)


class _Supervisor:
    """Watches pipes and processes in one loop; each turn handles one event."""

    def __init__(self, settings: Settings, configuration: Configuration) -> None:
        self._configuration = configuration
        self._count = settings.workers
        self._reserved, port = _reserve(settings)
        self._settings = settings.model_copy(update={"port": port})
        self._workers: dict[int, _Worker] = {}
        self._pauses: dict[int, float] = {}
        self._due: dict[int, float] = {}
        self._opened = self._announced = False
        self._is_supervisor = True
        self._awaited = (*ending_signals(), signal.SIGCHLD)
        self._ours, self._lifeline = socket.socketpair()  # Workers have the second one, which ends with this process.
        self._wakeup, self._signalled = socket.socketpair()
        self._wakeup.setblocking(False)
        self._signalled.setblocking(False)

    def run(self) -> int:
        previous = {number: signal.signal(number, lambda *_: None) for number in self._awaited}
        previous_fd = signal.set_wakeup_fd(self._signalled.fileno())
        try:
            _import_libraries(self._configuration)
            first = self._signal_so_far()
            for number in range(self._count if first is None else 0):
                self._start(number)
            while first is None:
                first = self._turn()
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
                self._reserved.close()

    def _start(self, number: int) -> None:
        ours, theirs = multiprocessing.Pipe()
        try:
            process = Fork.start((*self._awaited, *SENT_TO_ALL))
        except OSError:
            ours.close()
            theirs.close()
            raise
        if process is None:
            ours.close()
            raise _InChild(number, theirs)
        theirs.close()
        self._workers[number] = _Worker(number, process, ours)
        logger.info("worker %d started, pid %d", number, process.pid)

    def work(self, number: int, pipe: Connection) -> NoReturn:
        """Lets go of all that is the supervisor's, in a forked process, and is a worker until it ends."""
        signal.set_wakeup_fd(-1)
        for awaited in self._awaited:
            signal.signal(awaited, signal.SIG_DFL)
        for ignored in SENT_TO_ALL:
            signal.signal(ignored, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*self._awaited, *SENT_TO_ALL})
        for held in (self._reserved, self._ours, self._wakeup, self._signalled):
            held.close()
        for worker in self._workers.values():
            worker.pipe.close()
        leave_stdin()
        seed_again()
        _work(self._settings, self._configuration, number, pipe, self._lifeline, replaces=self._opened)

    def _signal_so_far(self) -> int | None:
        """The number of a signal that is to end the server, if one has come."""
        while wait([self._wakeup], 0):
            if (number := self._wakeup.recv(1)[0]) != signal.SIGCHLD:  # Of what libraries run while they are imported.
                return number
        return None

    def _turn(self) -> int | None:
        """Waits for something to happen and handles it; gives the number of a signal that is to end the server.

        SIGCHLD tells that a worker has ended: its sentinel, a pipe, is kept open by processes that its model forked.
        """
        timeout_s = max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None
        pipes = [worker.pipe for worker in self._workers.values() if not worker.silent]
        ready = wait([self._wakeup, *pipes], timeout_s)
        if self._wakeup in ready and (number := self._wakeup.recv(1)[0]) != signal.SIGCHLD:
            return number
        for worker in list(self._workers.values()):
            ended = worker.process.exitcode is not None
            if worker.pipe in ready or ended:
                self._hear(worker)
            if ended:
                self._bury(worker)
        for number in [number for number, due in self._due.items() if due <= time.monotonic()]:
            del self._due[number]
            self._start_again(number)
        return None

    def _hear(self, worker: _Worker) -> None:
        """Takes what a worker has said: that it is loaded, that it takes calls, or why it cannot."""
        try:
            while worker.pipe.poll():
                kind, text, worker.exit_code = worker.pipe.recv()
                if kind == FAILED:
                    worker.reason = text
                elif kind == OPENED:
                    worker.taking_since = time.monotonic()
                    self._announce(text)
                else:
                    self._open(worker)
        except (EOFError, OSError):
            worker.silent = True

    def _announce(self, ready_line: str) -> None:
        """Says that the server is ready, once all workers take calls."""
        taking = [worker for worker in self._workers.values() if worker.taking_since is not None]
        if len(taking) == self._count and not self._announced:
            self._announced = True
            logs.announce(f"{ready_line}, {self._count} workers", self._settings.log_format, sys.stdout)

    def _open(self, worker: _Worker) -> None:
        """Lets a loaded worker take calls: at once if others do, else when all are loaded."""
        worker.loaded = True
        if self._opened:
            worker.pipe.send(OPEN)
        elif len(self._workers) == self._count and all(other.loaded for other in self._workers.values()):
            self._opened = True
            for other in self._workers.values():
                with suppress(OSError):  # It has died since; its sentinel says so.
                    other.pipe.send(OPEN)

    def _bury(self, worker: _Worker) -> None:
        """Sees to a worker that has ended by itself: the end of all while they start, else replaced."""
        worker.pipe.close()
        del self._workers[worker.number]
        code = worker.process.exitcode
        if not self._opened:
            error = StartError(
                f"worker {worker.number} cannot start: {worker.reason or f'it ended with code {code} while loading'}"
            )
            error.exit_code = worker.exit_code or 2
            raise error
        # Not since it was started: loading may take long each time, and fail each time.
        if worker.taking_since is not None and time.monotonic() - worker.taking_since > STABLE_S:
            self._pauses.pop(worker.number, None)
        pause_s = self._put_off(worker.number)
        logger.error(
            "worker %d (pid %d) ended with code %s%s; a new one starts in %g s",
            worker.number,
            worker.process.pid,
            code,
            f" ({worker.reason})" if worker.reason else "",
            pause_s,
        )

    def _start_again(self, number: int) -> None:
        """Starts a worker in the place of one that has ended; later, if the machine does not let it now."""
        try:
            self._start(number)
        except OSError as error:
            pause_s = self._put_off(number)
            logger.error("worker %d cannot be started: %s; again in %g s", number, error, pause_s)  # noqa: TRY400

    def _put_off(self, number: int) -> float:
        """After how long a worker is started again, in seconds; the next time it is longer."""
        pause_s = self._pauses.get(number, 0.0)
        self._pauses[number] = min(LONGEST_PAUSE_S, max(1.0, pause_s * 2))
        self._due[number] = time.monotonic() + pause_s
        return pause_s

    def _end_all(self, first: int) -> int | None:
        """Drains the workers; gives the number of a second signal, which ends the wait.

        Args:
            first: The signal that ends them.

        """
        logger.info("draining %d workers", len(self._workers))
        has_lame_duck = first == signal.SIGTERM
        for process in [worker.process for worker in self._workers.values()]:
            if process.exitcode is None:
                os.kill(process.pid, signal.SIGTERM if has_lame_duck else END_WITHOUT_LAME_DUCK)
        limit_s = self._settings.drain_timeout_s + KILL_AFTER_S
        deadline = time.monotonic() + limit_s + (self._settings.lame_duck_s if has_lame_duck else 0)
        while True:
            for ended in [each for each in self._workers.values() if each.process.exitcode is not None]:
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


def _reserve(settings: Settings) -> tuple[socket.socket, int]:
    """Holds the port for the workers, whoever of them is alive, and finds out whether it is free.

    The first socket asks without SO_REUSEPORT: with it, a stranger's server on the port would share it.
    """
    family, kind, address = _address(settings)
    try:
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
            port: int = probe.getsockname()[1]
        reserved = socket.socket(family, kind)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((address[0], port, *address[2:]))
    except OSError as error:
        raise AddressUnavailable(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; choose another with "
            f"{spelling('port')} or PORT"
        ) from error
    return reserved, port


def _address(settings: Settings) -> Any:
    try:
        return addresses_of(settings.host, settings.port)[0]
    except OSError as error:
        raise StartError(f"{settings.source('host')} {settings.host}: no such host ({error.strerror})") from error


def _import_libraries(configuration: Configuration) -> None:
    """Imports what all workers need, once, where that memory can be shared: macOS forbids a fork after such imports."""
    from mlflow_grpc.engine import loading

    if sys.platform != "darwin":
        with suppress(ImportError):  # It shows again in the workers, which say so.
            loading.import_libraries(configuration.models)
        gc.collect()
        gc.freeze()


def _work(
    settings: Settings,
    configuration: Configuration,
    number: int,
    pipe: Connection,
    lifeline: socket.socket,
    *,
    replaces: bool,
) -> NoReturn:
    """The life of one worker, in a process of its own."""
    logs.configure(
        settings.log_format,
        settings.log_level,
        libraries=settings.log_level_libraries,
        worker=number,
        extra=configuration.logging,
    )
    threading.Thread(target=_end_with_supervisor, args=(lifeline,), name="watch-supervisor", daemon=True).start()
    # Imported here: the supervisor, which imports this module, must not import grpc.
    from mlflow_grpc import lifecycle, runner

    async def when_loaded(server: lifecycle.Server) -> None:
        pipe.send((LOADED, "", 0))
        await in_daemon_thread(pipe.recv)
        await server.open()
        pipe.send((OPENED, server.ready_line, 0))

    role = runner.Role(share_port=True, load_first=replaces, signals=(signal.SIGTERM, END_WITHOUT_LAME_DUCK))
    try:
        code = runner.run(settings, configuration, role=role, when_loaded=when_loaded)
    except StartError as error:
        pipe.send((FAILED, str(error), error.exit_code))
        code = error.exit_code
    except (EOFError, BrokenPipeError):
        code = 1  # The supervisor went while this worker was starting.
    end_process(code)


def _end_with_supervisor(lifeline: socket.socket) -> None:
    """Ends this process, at whatever it is, when the supervisor has gone."""
    wait([lifeline])
    logger.error("the supervisor has gone")
    os.kill(os.getpid(), signal.SIGTERM)
