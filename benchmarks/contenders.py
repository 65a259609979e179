"""The servers that are compared: started, asked, measured and ended."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import grpc
import requests
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from mlflow_grpc import protos

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sys.executable).parent
START_LIMIT_S = 120.0
GRPC_HEADER_BYTES = 5
TYPED_SERVICE = "model_grpc_service.ModelgRPCService"
ONE, BATCH = "bench_predict", "bench_predict_batch"
ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Contender(ABC):
    """A server in a process of its own."""

    name: str
    http2 = True

    def __init__(self, model: Path, log: Path) -> None:
        """Starts it.

        Args:
            model: The model to serve.
            log: Where its output goes.

        Raises:
            RuntimeError: It does not answer.

        """
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._log = log
        began = time.perf_counter()
        with log.open("w") as output:
            self._process = subprocess.Popen(
                self.command(model),
                cwd=ROOT,
                # MLflow starts uvicorn by name.
                env={**os.environ, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._first_answer()
        self.start_s = time.perf_counter() - began
        """How long it took from the start of the process to the first answer."""

    @abstractmethod
    def command(self, model: Path) -> list[str]:
        """The command line."""

    @abstractmethod
    def ask(self, text: str) -> str:
        """The answer to one payload; raises if there is none."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the load goes."""

    @abstractmethod
    def body(self, text: str) -> bytes:
        """A payload as the body of a request."""

    def answer_bytes(self, answer: str) -> int:
        """How long an answer that `ask` gave is on the wire."""
        return len(self.body(answer))

    def memory_mb(self) -> float:
        """What the process and its children have in memory, in MB (proportional set size)."""
        total = 0
        for pid in _family(self._process.pid):
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
                total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        return total / 1024

    def processor_s(self) -> float:
        """The seconds that the process has had of the processors."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Ends it and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

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
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.end()
                raise RuntimeError(
                    f"{self.name} does not answer; it said:\n{self._log.read_text(errors='replace')[-2000:]}"
                )
            time.sleep(0.02)


class _Grpc(Contender):
    _raw: Any = None

    def ask(self, text: str) -> str:
        """Calls predict."""
        if self._raw is None:
            # Without a proxy's or a broken connection's back-off between attempts at a server that starts.
            options = [*ANY_SIZE, ("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 50)]
            self._raw = grpc.insecure_channel(f"127.0.0.1:{self.port}", options).unary_unary("/MLflow/predict")
        answer: str = protos.Output.FromString(
            self._raw(protos.Input(value=text).SerializeToString(), timeout=60)
        ).value
        return answer

    @property
    def url(self) -> str:
        """The method's path."""
        return f"http://127.0.0.1:{self.port}/MLflow/predict"

    def body(self, text: str) -> bytes:
        """One gRPC message."""
        message: bytes = protos.Input(value=text).SerializeToString()
        return _framed(message)


class Ours(_Grpc):
    """The server of this project, with its defaults."""

    name = "mlflow-grpc"

    def command(self, model: Path) -> list[str]:
        """The server as a user starts it."""
        return [sys.executable, "server.py", "-m", str(model), "-p", str(self.port), "--model-name", "bench"]


class Typed(Ours):
    """The same server, called by the RPCs that it makes from the model's signature."""

    name = "mlflow-grpc, typed"

    def __init__(self, model: Path, log: Path) -> None:
        """Starts it, and gets its messages by reflection."""
        super().__init__(model, log)
        self._channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", ANY_SIZE)
        self._service: Any = DescriptorPool(ProtoReflectionDescriptorDatabase(self._channel)).FindServiceByName(
            TYPED_SERVICE
        )
        self._answer_bytes: dict[str, int] = {}
        self._method = ""

    def ask(self, text: str) -> str:
        """Calls the typed RPC, once it is known, and tells the answer as MLflow would."""
        if not hasattr(self, "_service"):
            return super().ask(text)
        data = self.body(text)[GRPC_HEADER_BYTES:]
        rpc: Any = self._channel.unary_unary(f"/{TYPED_SERVICE}/{self._method}")
        raw = rpc(data, timeout=60)
        answer: Any = GetMessageClass(self._service.FindMethodByName(self._method).output_type).FromString(raw)
        found = answer.prediction if self._method == ONE else list(answer.prediction)
        told = json.dumps({"predictions": [found] if self._method == ONE else found})
        self._answer_bytes[told] = len(_framed(raw))
        return told

    def answer_bytes(self, answer: str) -> int:
        """As it came."""
        return self._answer_bytes[answer]

    @property
    def url(self) -> str:
        """The path of the method for the last payload."""
        return f"http://127.0.0.1:{self.port}/{TYPED_SERVICE}/{self._method}"

    def body(self, text: str) -> bytes:
        """One message of a row, or of rows in columns."""
        table = json.loads(text)["dataframe_split"]
        rows = table["data"]
        self._method = ONE if len(rows) == 1 else BATCH
        message: Any = GetMessageClass(self._service.FindMethodByName(self._method).input_type)()
        # The fields stand in the order of the columns, by names that protobuf takes.
        for place, field in enumerate(message.DESCRIPTOR.fields[: len(table["columns"])]):
            if self._method == ONE:
                setattr(message, field.name, rows[0][place])
            else:
                getattr(message, field.name).extend(row[place] for row in rows)
        return _framed(message.SerializeToString())


class Echo(_Grpc):
    """The bare echo."""

    name = "bare echo"

    def command(self, model: Path) -> list[str]:
        """The echo server, which needs no model."""
        return [sys.executable, "-m", "benchmarks.echo", str(self.port)]


class Mlflow(Contender):
    """MLflow's own server, with its defaults and one worker."""

    name = "mlflow models serve"
    http2 = False

    def command(self, model: Path) -> list[str]:
        """The server as MLflow's documentation starts it."""
        where = ["-m", str(model), "-p", str(self.port), "--env-manager", "local", "-w", "1"]
        return [str(SCRIPTS / "mlflow"), "models", "serve", *where]

    def ask(self, text: str) -> str:
        """Posts an invocation."""
        answer = requests.post(self.url, text.encode(), headers={"content-type": "application/json"}, timeout=60)
        answer.raise_for_status()
        return answer.text

    @property
    def url(self) -> str:
        """The scoring endpoint."""
        return f"http://127.0.0.1:{self.port}/invocations"

    def body(self, text: str) -> bytes:
        """The payload itself."""
        return text.encode()


CONTENDERS: tuple[type[Contender], ...] = (Ours, Typed, Mlflow, Echo)


def _framed(message: bytes) -> bytes:
    """A message as gRPC sends it: not compressed, its length, its bytes."""
    return b"\0" + len(message).to_bytes(GRPC_HEADER_BYTES - 1, "big") + message


def _family(pid: int) -> list[int]:
    """A process and all that it started."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return [pid, *(member for child in children for member in _family(int(child)))]
    return [pid]
