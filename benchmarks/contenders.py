"""The servers in the comparison: start, call, measurement and end."""

import json
import os
import socket
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import grpc
import requests

from benchmarks.processes import ServerProcess
from benchmarks.typed_messages import TypedMessages
from mlflow_grpc import protos

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sys.executable).parent
START_LIMIT_S = 120.0
GRPC_HEADER_BYTES = 5
ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Contender(ABC):
    """A server in a separate process."""

    name: str
    http2 = True

    def __init__(self, model: Path, log: Path) -> None:
        """Starts the server.

        Args:
            model: The model to serve.
            log: The file for its output.

        Raises:
            RuntimeError: The server does not answer.

        """
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        began = time.perf_counter()
        # MLflow starts uvicorn by name.
        environment = {**os.environ, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
        self._process = ServerProcess(self.command(model), log, ROOT, environment)
        self._first_answer()
        self.start_s = time.perf_counter() - began
        """Returns the time from the start of the process to the first answer, in seconds."""

    @abstractmethod
    def command(self, model: Path) -> list[str]:
        """Returns the command line."""

    @abstractmethod
    def ask(self, text: str) -> str:
        """Returns the answer to one payload, or raises the error of the call."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Returns the URL for the load generator."""

    @abstractmethod
    def body(self, text: str) -> bytes:
        """Converts a payload to the body of a request."""

    def answer_bytes(self, answer: str) -> int:
        """Returns the size in bytes that an answer of `ask` has on the wire."""
        return len(self.body(answer))

    def memory_mb(self) -> float:
        """Returns the memory of the process and its children in MB (proportional set size)."""
        return self._process.memory_mb()

    def processor_s(self) -> float:
        """Returns the CPU time of the process and its children in seconds."""
        return self._process.processor_s()

    def end(self) -> None:
        """Ends the process and its children."""
        self._process.end()

    def _first_answer(self) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            try:
                self.ask('{"dataframe_split": {"columns": [], "data": []}}')
            except (grpc.RpcError, requests.RequestException) as error:
                if isinstance(error, grpc.RpcError):
                    code: Any = error
                    if code.code() is grpc.StatusCode.INVALID_ARGUMENT:
                        return
                elif isinstance(error, requests.HTTPError):
                    return
            else:
                return
            if self._process.has_ended or time.monotonic() > deadline:
                self.end()
                raise RuntimeError(f"{self.name} does not answer; it said:\n{self._process.last_output()}")
            time.sleep(0.02)


class _Grpc(Contender):
    _raw: Any = None

    def ask(self, text: str) -> str:
        """Calls the RPC `predict`."""
        if self._raw is None:
            # No proxy, and no back-off between attempts while the server starts.
            options = [*ANY_SIZE, ("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 50)]
            self._raw = grpc.insecure_channel(f"127.0.0.1:{self.port}", options).unary_unary("/MLflow/predict")
        answer: str = protos.Output.FromString(
            self._raw(protos.Input(value=text).SerializeToString(), timeout=60)
        ).value
        return answer

    @property
    def url(self) -> str:
        """Returns the URL with the path of the method."""
        return f"http://127.0.0.1:{self.port}/MLflow/predict"

    def body(self, text: str) -> bytes:
        """Converts a payload to one gRPC message."""
        message: bytes = protos.Input(value=text).SerializeToString()
        return framed(message)


class Ours(_Grpc):
    """The server of this project with its defaults."""

    name = "mlflow-grpc"

    def command(self, model: Path) -> list[str]:
        """Returns the command that a user would run."""
        return [sys.executable, "server.py", "-m", str(model), "-p", str(self.port), "--model-name", "bench"]


class OursWithHttpPort(Ours):
    """The same server with its HTTP port open, called over gRPC."""

    name = "mlflow-grpc, HTTP port open"

    def command(self, model: Path) -> list[str]:
        """Returns the command of the server, with a free port for HTTP."""
        return [*super().command(model), "--http-port", "0"]


class Typed(Ours):
    """The same server, called through its typed RPCs."""

    name = "mlflow-grpc, typed"

    def __init__(self, model: Path, log: Path) -> None:
        """Starts the server, and reads its messages by reflection."""
        super().__init__(model, log)
        self._channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", ANY_SIZE)
        self._messages = TypedMessages(self._channel)
        self._answer_bytes: dict[str, int] = {}

    def ask(self, text: str) -> str:
        """Calls the typed RPC, if it is known yet, and returns the answer in MLflow's form."""
        if not hasattr(self, "_messages"):
            return super().ask(text)
        data = self._messages.request(text)
        rpc: Any = self._channel.unary_unary(self._messages.path)
        raw = rpc(data, timeout=60)
        json_answer = json.dumps({"predictions": self._messages.predictions(raw)})
        self._answer_bytes[json_answer] = len(framed(raw))
        return json_answer

    def answer_bytes(self, answer: str) -> int:
        """Returns the size of the message as it arrived."""
        return self._answer_bytes[answer]

    @property
    def url(self) -> str:
        """Returns the URL with the path of the method for the last payload."""
        return f"http://127.0.0.1:{self.port}{self._messages.path}"

    def body(self, text: str) -> bytes:
        """Converts a payload to one message, of a row or of rows in columns."""
        return framed(self._messages.request(text))


class Echo(_Grpc):
    """The bare echo server."""

    name = "bare echo"

    def command(self, model: Path) -> list[str]:
        """Returns the command of the echo server, which needs no model."""
        return [sys.executable, "-m", "benchmarks.echo", str(self.port)]


class _Rest(Contender):
    """A server with MLflow's REST contract."""

    http2 = False

    def ask(self, text: str) -> str:
        """Posts the payload to the scoring endpoint."""
        answer = requests.post(self.url, text.encode(), headers={"content-type": "application/json"}, timeout=60)
        answer.raise_for_status()
        return answer.text

    @property
    def url(self) -> str:
        """Returns the URL of the scoring endpoint."""
        return f"http://127.0.0.1:{self.port}/invocations"

    def body(self, text: str) -> bytes:
        """Returns the payload unchanged."""
        return text.encode()


class Mlflow(_Rest):
    """MLflow's own server with its defaults and one worker."""

    name = "mlflow models serve"

    def command(self, model: Path) -> list[str]:
        """Returns the command from MLflow's documentation."""
        where = ["-m", str(model), "-p", str(self.port), "--env-manager", "local", "-w", "1"]
        return [str(SCRIPTS / "mlflow"), "models", "serve", *where]


class Http(_Rest):
    """The server of this project, called through its HTTP port."""

    name = "mlflow-grpc, HTTP"

    def command(self, model: Path) -> list[str]:
        """Returns the command that a user would run."""
        return [sys.executable, "server.py", "-m", str(model), "-p", "0", "--http-port", str(self.port)]


CONTENDERS: tuple[type[Contender], ...] = (Ours, Typed, Http, Mlflow, Echo)


def framed(message: bytes) -> bytes:
    """Frames a message as gRPC sends it: the flag for compression, the length, the bytes."""
    return b"\0" + len(message).to_bytes(GRPC_HEADER_BYTES - 1, "big") + message
