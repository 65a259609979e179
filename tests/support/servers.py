"""Starts servers for tests, without fixed ports and sleeps.

This project's server runs in the process of the test or in its own; MLflow's server runs in its own process.
"""

import asyncio
import contextlib
import inspect
import json
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import grpc
import requests

from mlflow_grpc import config, protos
from mlflow_grpc.access_config import AccessRule
from mlflow_grpc.daemon_threads import DaemonLoadThread
from mlflow_grpc.engine.loading import load
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.hosting.model import HostedModel
from mlflow_grpc.lifecycle import Server
from mlflow_grpc.payload.codec import Codec
from mlflow_grpc.settings import Settings
from tests.support.fork_server import ForkedProcess

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 100.0
MLFLOW_START_LIMIT_S = 300.0  # MLflow is imported twice, in two processes one after the other.


def error_in(line: str) -> str:
    """Returns the line about why a server cannot start, as it is on a terminal; empty for any other line."""
    entry = json.loads(line) if line.startswith('{"time":') else {}
    if entry.get("level") == "critical":
        return f"Error: {entry['message']}"
    return line if line.startswith("Error: ") else ""


class Process:
    """A child process whose output is collected line by line."""

    def __init__(self, command: list[str], env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
        self.popen = self._start(command, environment(env), cwd or ROOT)
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self.is_read = threading.Event()  # While it is cleared, the output is not read.
        self.is_read.set()
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self.popen.stdout, self.stdout), (self.popen.stderr, self.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _start(self, command: list[str], env: dict[str, str], cwd: Path) -> "subprocess.Popen[bytes] | ForkedProcess":
        return subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            with self._news:
                lines.append(line.decode(errors="replace").rstrip("\n"))
                self._news.notify_all()
            self.is_read.wait()
        stream.close()
        with self._news:
            self._news.notify_all()

    def wait_for(self, pattern: str, *, times: int = 1, timeout_s: float = START_LIMIT_S) -> re.Match[str]:
        """Waits for a matching line on stdout or stderr, or for a number of them; returns the last one."""
        deadline = time.monotonic() + timeout_s
        with self._news:
            while True:
                matches = [match for line in (*self.stdout, *self.stderr) if (match := re.search(pattern, line))]
                if len(matches) >= times:
                    return matches[times - 1]
                ended = not any(reader.is_alive() for reader in self._readers)
                if ended or not self._news.wait(deadline - time.monotonic()):
                    raise AssertionError(f"no line matches {pattern!r}:\n{self.output}")

    @property
    def output(self) -> str:
        return "\n".join((*self.stdout, *self.stderr))

    @property
    def errors(self) -> list[str]:
        """The lines about why it cannot start, as they are on a terminal."""
        return [error for line in self.stderr if (error := error_in(line))]

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def wait(self, timeout_s: float = START_LIMIT_S) -> int:
        """Returns the exit code, after the process has ended and all of its output has been read."""
        code = self.popen.wait(timeout_s)
        for reader in self._readers:
            reader.join(timeout_s)
        return code

    def stop(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class Forked(Process):
    """A process of the command `mlflow-grpc` that has already imported MLflow, started by the fork server."""

    def _start(self, command: list[str], env: dict[str, str], cwd: Path) -> ForkedProcess:
        return ForkedProcess(command, env, cwd)


class ForkedUvicorn(Process):
    """A process of the command `uvicorn`, which `mlflow models serve` runs, started by the fork server."""

    def _start(self, command: list[str], env: dict[str, str], cwd: Path) -> ForkedProcess:
        return ForkedProcess(command, env, cwd, "uvicorn")


class ForkedRegistry(Process):
    """A process that creates a registry with the stepper, `tests/support/registry.py`, started by the fork server."""

    def _start(self, command: list[str], env: dict[str, str], cwd: Path) -> ForkedProcess:
        return ForkedProcess(command, env, cwd, "registry")


class ForkedRolloutRegistry(Process):
    """A process that creates the registry of `tests/support/rollout_registry.py`, started by the fork server."""

    def _start(self, command: list[str], env: dict[str, str], cwd: Path) -> ForkedProcess:
        return ForkedProcess(command, env, cwd, "rollout-registry")


class ForkedDeployments(Process):
    """A process of the command `mlflow deployments`, started by the fork server."""

    def _start(self, command: list[str], env: dict[str, str], cwd: Path) -> ForkedProcess:
        return ForkedProcess(command, env, cwd, "deployments")


def environment(changes: dict[str, str] | None) -> dict[str, str]:
    """Returns the environment of a child process: that of the tests with the changes, without settings of a server or
    MLflow."""
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("MLFLOW_", "MODEL_PATH")) and key not in ("HOST", "PORT")
    }
    return {**clean, "PYTHONWARNINGS": "ignore", "MLFLOW_GRPC_LAME_DUCK": "0", **(changes or {})}


def start_server(
    *flags: str, env: dict[str, str] | None = None, cwd: Path | None = None, fresh: bool = False
) -> Process:
    """Starts a server on a free port; does not wait.

    Args:
        flags: Flags of `mlflow-grpc serve`.
        env: Variables to change.
        cwd: Working directory; the repository by default.
        fresh: True for a new process, `python server.py`. False for a copy of a process that has imported MLflow.
    """
    arguments = ["--port", "0", *flags]
    if fresh:
        return Process([sys.executable, str(ROOT / "server.py"), *arguments], env, cwd)
    return Forked(["serve", *arguments], env, cwd)


def ready_address(process: Process) -> str:
    """Waits for the ready line and returns the address in it."""
    return process.wait_for(r"ready: models? .* on (\S+:\d+),")[1]


def start_mlflow_server(model: Path, *, fresh: bool = False) -> tuple[Process, str]:
    """Starts MLflow's scoring server and waits until it answers.

    Args:
        model: The directory of an MLflow model.
        fresh: True for the command `mlflow models serve` in a new process, which imports MLflow twice. False to run the
            uvicorn that this command runs, as a copy of a process that has imported MLflow.

    Returns:
        The process, and the URL of its invocations.
    """
    port, scripts = free_port(), Path(sys.executable).parent
    process: Process
    if fresh:
        process = Process(
            [str(scripts / "mlflow"), "models", "serve", "-m", str(model), "-p", str(port), "--env-manager", "local"],
            env={"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},  # The command starts uvicorn by name.
        )
    else:
        from mlflow.pyfunc.scoring_server import get_cmd

        command, env = get_cmd(str(model), port=port, nworkers=1)  # The command of uvicorn, which listens on 127.0.0.1.
        process = ForkedUvicorn(shlex.split(command)[1:], {key: env[key] for key in env.keys() - os.environ.keys()})
    try:
        process.wait_for(r"Uvicorn running on", timeout_s=MLFLOW_START_LIMIT_S)
    except BaseException:
        process.stop()
        raise
    return process, f"http://127.0.0.1:{port}/invocations"


def free_port() -> int:
    """Returns a port that is free now.

    It is below the range from which the kernel picks ports for servers and connections of other tests that run
    meanwhile.
    """
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            port = random.SystemRandom().randrange(10_000, 32_768)
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def serving(model: HostedModel, codec: Codec, **settings: Any) -> Iterator["InProcess"]:
    """Runs a server in this process, in its own thread, with a model that is already loaded."""
    running = InProcess(Settings(**{"model_uri": "(in process)", "model_name": model.name, "port": 0, **settings}))
    running.start(model, codec)
    try:
        yield running
    finally:
        running.stop()


@contextlib.contextmanager
def serving_models(
    models: Sequence[tuple[config.ModelConfig, ServableModel | str | None]],
    access: tuple[AccessRule, ...] | None = None,
    **settings: Any,
) -> Iterator["InProcess"]:
    """Runs a server in this process with several models.

    Each is a loaded model, the reason why a model cannot be loaded, or a configuration from which the server loads it.
    """
    server_settings = Settings(**{"model_uri": "(in process)", "port": 0, **settings})
    configuration = config.Configuration(models=tuple(model for model, _ in models), access=access)
    running = InProcess(server_settings, configuration)
    running.start(None, None)

    async def host_all() -> None:
        for entry, (model, loaded) in zip(running.server.catalog.entries, models, strict=True):
            if isinstance(loaded, str):
                running.server.catalog.mark_failed(entry, loaded)
            else:
                running.server.host.add(entry, loaded or load(model, server_settings))
        running.server.host._rollout.start(DaemonLoadThread())
        running.server.open()

    try:
        running.run(host_all)
        yield running
    finally:
        running.stop()


class InProcess:
    """A server in a thread of this process."""

    def __init__(self, settings: Settings, configuration: config.Configuration | None = None) -> None:
        self._settings = settings
        self._configuration = configuration or config.load(settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.server: Server

    def run(self, make: Callable[[], Any]) -> Any:
        """Runs a function or a coroutine in the server's event loop and waits for its result."""

        async def call() -> Any:
            result = make()
            return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(START_LIMIT_S)

    def start_task(self, make: Callable[[], Any]) -> Future[Any]:
        """Starts a coroutine in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(make(), self._loop)

    def wait_until(self, condition: Callable[..., Any]) -> None:
        """Waits until a condition holds in the server's event loop."""

        async def turn() -> None:
            while not condition():
                await asyncio.sleep(0.001)

        self.run(lambda: asyncio.wait_for(turn(), 20))

    def start(self, model: HostedModel | None, codec: Codec | None) -> None:
        self._thread.start()

        async def start() -> None:
            self.server = Server(self._settings, self._configuration)
            await self.server.start()
            if model is not None and codec is not None:
                await self.host(model, codec)

        self.run(start)

    async def host(self, model: HostedModel, codec: Codec) -> None:
        """Hosts a model and opens the server for calls; runs in the server's event loop."""
        (entry,) = self.server.catalog.entries
        self.server.host.add(entry, ServableModel(model, codec))
        self.server.open()

    @property
    def address(self) -> str:
        return self.server.address

    @property
    def url(self) -> str:
        """Address of the HTTP port, for a server with `http_port`."""
        return self.server.http_url

    def stop(self) -> None:
        self.run(self.server.stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Caller:
    """Calls /MLflow/predict directly, without a client library of this project."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            # Otherwise, channels of one process share a connection.
            ("grpc.use_local_subchannel_pool", 1),
            # Otherwise, the window grows with the round-trip time, and messages that nobody reads fit into it.
            ("grpc.http2.bdp_probe", 0),
        ]
        self.channel = (
            grpc.secure_channel(address, credentials, options)
            if credentials
            else grpc.insecure_channel(address, options)
        )
        self.raw: Any = self.channel.unary_unary("/MLflow/predict")

    def __call__(self, text: str, *, timeout: float = 30.0, **metadata: str) -> str:
        """Returns the text of the answer; raises grpc.RpcError."""
        pairs = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
        data = self.raw(protos.Input(value=text).SerializeToString(), timeout=timeout, metadata=pairs)
        answer: Any = protos.Output.FromString(data)
        return str(answer.value)

    def outcome(self, text: str, **more: Any) -> tuple[str, str | None]:
        """Returns the status, and the text of the answer or the error message."""
        try:
            return "OK", self(text, **more)
        except grpc.RpcError as error:
            return error.code().name, error.details()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.channel.close()


def post(url: str, text: str, content_type: str = "application/json") -> tuple[int, str]:
    """Returns the HTTP status and body of a response from MLflow's server."""
    answer = requests.post(url, data=text.encode(), headers={"Content-Type": content_type}, timeout=60)
    return answer.status_code, answer.text
