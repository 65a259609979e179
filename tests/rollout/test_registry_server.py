"""A registry behind HTTP that is stopped, hangs and answers nonsense while a server follows it."""

import contextlib
import os
import signal
import socketserver
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rollout.conftest import Registry, Tracking, predicted
from tests.support.http_server import run_in_thread
from tests.support.rollout_registry import OWN, OWN_OTHER
from tests.support.servers import Process, free_port

pytestmark = [pytest.mark.slow, pytest.mark.deep, pytest.mark.timeout(300)]

NONSENSE = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]",
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
    b"",
)
"""Answers of a server that is broken, each in turn."""


class MlflowServer(Process):
    """MLflow's tracking server with a registry, in a process group of its own."""

    def __init__(self, registry: Registry, port: int, env: dict[str, str] | None = None) -> None:
        scripts = Path(sys.executable).parent
        super().__init__(
            [
                *(str(scripts / "mlflow"), "server", "--backend-store-uri", registry.uri, "--workers", "1"),
                *("--default-artifact-root", str(registry.path.parent), "--host", "127.0.0.1", "--port", str(port)),
            ],
            {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", **(env or {})},
        )
        self.wait_for("Uvicorn running on", timeout_s=200)

    def _start(self, command: list[str], env: dict[str, str], cwd: Path) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def signal_all(self, number: signal.Signals) -> None:
        os.killpg(self.popen.pid, number)

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.signal_all(signal.SIGKILL)
        super().stop()
        for reader in self._readers:  # The pipes close with the last process of the group, which has the port.
            reader.join(20)


@contextlib.contextmanager
def broken_registry(port: int) -> Iterator[None]:
    """Runs a server whose answers are those of NONSENSE."""
    answers = iter(NONSENSE * 1000)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(next(answers))

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", port), Handler) as server:
        run_in_thread(server)
        yield
        server.shutdown()


def wait_for_failed_polls(server: Tracking, more: int) -> None:
    """Waits for further queries that fail, while the server answers calls with version 2."""
    name = "mlflow_grpc_registry_polls_total"
    polls = server.metrics().total(name, result="failed")
    while server.metrics().total(name, result="failed") < polls + more:
        assert server.answer() == ('{"predictions": [2]}', "2")


def test_a_registry_that_is_away_changes_nothing(track, registry):
    """Calls are answered, each outage is one line in the log, and what moved meanwhile is served soon afterwards."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    silent, again = "the registry does not answer, and nothing changes", "the registry answers again"
    with MlflowServer(registry, port) as mlflow_server:
        server = track("--keep-previous", "0", env={"MLFLOW_TRACKING_URI": url})
        registry.move("2")
        server.wait_for_version("2")
        mlflow_server.signal_all(signal.SIGSTOP)  # It accepts connections, and never answers.
        server.process.wait_for(f"{silent}: no answer within 5 s|{silent}: .*timed out", timeout_s=60)
        wait_for_failed_polls(server, 1)
        registry.move("3")
        mlflow_server.signal_all(signal.SIGCONT)
        server.process.wait_for(again)
        server.wait_for_version("3")
        registry.move("2")
        server.wait_for_version("2", times=2)
    server.process.wait_for(silent, times=2)  # Nothing listens.
    with broken_registry(port):
        wait_for_failed_polls(server, 2 * len(NONSENSE))
    registry.move("1")
    with MlflowServer(registry, port):
        server.process.wait_for(again, times=2)
        server.wait_for_version("1")
    assert server.process.output.count(silent) in (2, 3)  # The second server may end before the last query.
    assert "Traceback" not in server.process.output


def test_another_process_fetches_from_the_registry(track, registry):
    """A version with other code is fetched over HTTP by the worker that replaces the one that tracks it, and back."""
    port = free_port()
    with MlflowServer(registry, port):
        server = track(uri=f"models:/{OWN}@champion", env={"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"})
        for times, (version, text) in enumerate(((OWN_OTHER, predicted(3000)), ("1", predicted(1))), 1):
            registry.move(version, name=OWN)
            server.wait_for_version(version)
            server.wait_until_replaced(times=times)
            assert server.answer() == (text, version)
