"""Server processes that start as copies of a process that has already imported MLflow, which takes seconds of CPU.

A copy has the arguments, environment, working directory and standard streams of a new process. Settings that Python reads
only at start are those of the fork server: `-W` and `PYTHONWARNINGS`, `sitecustomize`, and signals that a shell has set
to be ignored. At its end a copy waits for threads, calls exit handlers and flushes streams, as every process does. It does
not delete modules one by one, because that takes longer than many a test.

Rule of this module: like the supervisor of workers, the process that forks has one Python thread and has not imported
grpc.
"""

import atexit
import contextlib
import fcntl
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from mlflow_grpc.forks import Fork, leave_stdin, seed_again
from mlflow_grpc.hosting.pyfunc import internals

ROOT = Path(__file__).resolve().parents[2]

LIBRARIES = (
    "google.protobuf.any_pb2",
    "google.rpc.error_details_pb2",
    "google.rpc.status_pb2",
    "grpc_health.v1.health_pb2",
    "grpc_reflection.v1alpha.reflection_pb2",
    "mlflow.pyfunc.scoring_server",
    "mlflow.sklearn",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "pandas",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.neighbors",
    "sklearn.tree",
    "skops.io",
    "uvicorn.main",
)
ROOMS = (
    "access", "calls", "contract", "engine", "environments", "hosting", "http", "payload", "recording", "telemetry",
)  # fmt: skip
"""Packages of the server that do not need grpc. The fork server imports all of their modules and the libraries of these."""

COMMANDS = {
    "mlflow-grpc": "mlflow_grpc.cli:main",
    "uvicorn": "uvicorn.main:main",
    "registry": "tests.support.registry:main",
    "rollout-registry": "tests.support.rollout_registry:main",
    "deployments": "tests.support.deployments_command:main",
}
"""Commands that a copy can run, with their module and function."""

INHERITED = (signal.SIGINT, signal.SIGHUP)
"""Signals that a new process ignores if its parent does."""


class ForkedProcess:
    """A process started by the fork server, with those methods of `subprocess.Popen` that tests use."""

    def __init__(self, arguments: Sequence[str], env: dict[str, str], cwd: Path, command: str = "mlflow-grpc") -> None:
        """Starts a command.

        Args:
            arguments: Arguments of the command.
            env: The complete environment.
            cwd: Working directory.
            command: One of `COMMANDS`.

        Raises:
            ValueError: Python reads one of the variables only at its start.
            RuntimeError: The fork server could not start.
        """
        for name, value in env.items():
            is_read_late = name == "PYTHONPATH" or (name, value) == ("PYTHONWARNINGS", "ignore")
            if name.startswith("PYTHON") and not is_read_late and os.environ.get(name) != value:
                raise ValueError(f"a copy of a process cannot have another {name}: start a fresh one")
        request = {
            "command": command,
            "arguments": list(arguments),
            "env": env,
            "cwd": str(cwd),
            "coverage": _data_file(),
            "ignored": [number for number in INHERITED if signal.getsignal(number) is signal.SIG_IGN],
        }
        self._control, theirs = socket.socketpair()
        outputs = [os.pipe(), os.pipe()]
        self.stdout: IO[bytes] = os.fdopen(outputs[0][0], "rb")
        self.stderr: IO[bytes] = os.fdopen(outputs[1][0], "rb")
        self._replies = self._control.makefile("r")
        try:
            socket.send_fds(fork_server(), [b"f"], [outputs[0][1], outputs[1][1], theirs.fileno()])
            theirs.close()
            self._control.sendall(json.dumps(request).encode())
            self._control.shutdown(socket.SHUT_WR)
            reply = self._replies.readline()
        except OSError:
            reply = ""
        finally:
            theirs.close()
            for _, writing in outputs:
                os.close(writing)
        if not reply:
            for file in (self.stdout, self.stderr, self._replies, self._control):
                file.close()
            raise RuntimeError("the fork server has ended; its reason is on stderr")
        self.pid = int(reply)
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end of the process; returns its exit code, or the negative number of the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: The process still runs.
        """
        if self.returncode is None:
            if not select.select([self._control], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            self.returncode = int(self._replies.readline())
            self._replies.close()
            self._control.close()
        return self.returncode

    def poll(self) -> int | None:
        """Returns the exit code, or None while the process runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills the process."""
        self.send_signal(signal.SIGKILL)


def _data_file() -> str | None:
    """Returns the coverage file of this process, if coverage is measured."""
    coverage = sys.modules.get("coverage")
    measured = coverage.Coverage.current() if coverage else None
    return measured and str(ROOT / ".coverage")


def _measure(data_file: str) -> None:
    """Measures the coverage of a copy, and of the workers that it forks, until it ends by itself."""
    from coverage import Coverage

    measured = Coverage(data_file, data_suffix=True, config_file=str(ROOT / "pyproject.toml"), messages=False)
    measured.start()

    def end() -> None:
        measured.stop()
        measured.save()

    atexit.register(end)


@functools.cache
def fork_server() -> socket.socket:
    """Returns a connection to the fork server, which all processes of a run of pytest share; the first one starts it.

    It ends with the last connection.
    """
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", os.getpid())
    name = f"\0fork-server-{run}"  # Linux removes such an address with its last socket.
    with Path(__file__).open() as lock, socket.socket(socket.AF_UNIX) as listener:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            listener.bind(name)
        except OSError:  # Another process has started it.
            started = None
        else:
            listener.listen()
            started = _start(listener)
        ours = socket.socket(socket.AF_UNIX)
        ours.connect(name)

    def end() -> None:
        with contextlib.suppress(OSError):  # It has ended.
            ours.shutdown(socket.SHUT_RDWR)
        ours.close()
        if started is not None:
            started.wait()

    atexit.register(end)
    return ours


def _start(listener: socket.socket) -> "subprocess.Popen[bytes]":
    """Starts the fork server, which accepts connections from a socket."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return subprocess.Popen(
        [sys.executable, "-c", f"from tests.support import fork_server; fork_server.run({listener.fileno()})"],
        cwd=ROOT,
        env={**env, "PYTHONWARNINGS": "ignore"},
        pass_fds=[listener.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # Python buffers output to a terminal differently.
    )


def _serve(listener: socket.socket) -> dict[str, Any] | None:
    """Forks for each request; returns the request in the child, and None when the last connection has ended."""
    wakeup, signalled = socket.socketpair()
    for end in (wakeup, signalled):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(signalled.fileno())
    children: list[tuple[Fork, socket.socket]] = []
    connections = [listener.accept()[0]]
    while connections:
        ready = select.select([listener, wakeup, *connections], [], [])[0]
        if listener in ready:
            connections.append(listener.accept()[0])
        if wakeup in ready:
            wakeup.recv(4096)
            for child, control in list(children):
                if child.exitcode is not None:
                    children.remove((child, control))
                    with control, contextlib.suppress(OSError):  # The test did not wait.
                        control.sendall(f"{child.exitcode}\n".encode())
        for requests in [connection for connection in connections if connection in ready]:
            _, fds, _, _ = socket.recv_fds(requests, 1, 3)
            if not fds:
                requests.close()
                connections.remove(requests)
                continue
            control = socket.socket(fileno=fds[2])
            started = Fork.start((signal.SIGTERM, *INHERITED))
            if started is None:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for held in (listener, *connections, wakeup, signalled, *(held for _, held in children)):
                    held.close()
                return _become(fds[0], fds[1], control)
            for fd in fds[:2]:
                os.close(fd)
            children.append((started, control))
            control.sendall(f"{started.pid}\n".encode())
    return None


def _become(stdout: int, stderr: int, control: socket.socket) -> dict[str, Any]:
    """Sets up a copy as its request demands; returns the request."""
    with control, control.makefile("rb") as file:
        request: dict[str, Any] = json.load(file)
    leave_stdin()
    for fd, standard in ((stdout, 1), (stderr, 2)):
        os.dup2(fd, standard)
        os.close(fd)
    for number in INHERITED:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else default)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, *INHERITED))
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = [request["command"], *request["arguments"]]
    seed_again()
    return request


def run(fd: int) -> None:
    """Runs the fork server, which gets requests from connections to a socket, or one of its copies, until it ends."""
    gc.disable()  # Modules that are being imported are no garbage.
    sys.path[0] = str(ROOT)  # Replaces the working directory, which copies change.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which then end.
    for name in LIBRARIES:
        # An old MLflow may not import together with a newer SQLAlchemy. Servers that need neither still start.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in ("mlflow_grpc.cli", "mlflow_grpc.main_thread", "mlflow_grpc.tls_files"):
        importlib.import_module(name)
    for room in ROOMS:
        package = importlib.import_module(f"mlflow_grpc.{room}")
        for submodule in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            with contextlib.suppress(ImportError):  # An extra may be missing. A server that needs it says so.
                importlib.import_module(submodule.name)
    _prepare_registries()
    internals.check_requirement("mlflow")  # MLflow lists the installed packages once, which takes half a second.
    if threading.active_count() > 1 or "grpc" in sys.modules:
        raise RuntimeError(f"a process with grpc or with threads cannot be copied: {threading.enumerate()}")
    gc.collect()
    gc.freeze()
    gc.enable()
    if (request := _serve(socket.socket(fileno=fd))) is not None:
        if request["coverage"]:
            _measure(request["coverage"])
        module, _, function = COMMANDS[request["command"]].partition(":")
        try:
            getattr(importlib.import_module(module), function)()
        except SystemExit as end:
            if isinstance(end.code, int | None):
                _end(end.code or 0)
            raise


def _prepare_registries() -> None:
    """Does what MLflow would do in each copy that opens a database: it reads its migrations, and configures its tables."""
    with contextlib.suppress(ImportError):  # An old MLflow may not import together with a newer SQLAlchemy.
        from mlflow.store.db import utils
        from sqlalchemy.orm import configure_mappers

        configure_mappers()
        utils._get_latest_schema_revision = functools.cache(utils._get_latest_schema_revision)
        utils._get_latest_schema_revision()


def _end(code: int) -> NoReturn:
    """Ends a copy as Python ends a process, except that it deletes no modules."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
