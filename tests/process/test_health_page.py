"""The table of health checks in docs/operations.md, tried on real servers in each of its states."""

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlflow_grpc import protos
from tests.process.conftest import payload
from tests.support.servers import ROOT, Caller, Process, free_port, ready_address, start_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

PAGE = (ROOT / "docs" / "operations.md").read_text()
STATES = ("a model loads", "serving", "lame duck", "hung calls hold all threads")
LOADS, LOADED = "gated", "quick"
"""The model that is still loading in the first state, and the one that is loaded."""
HealthStub: Any = health_pb2_grpc.HealthStub


def column(state: str) -> dict[str, str]:
    """Returns the cells of the table in a column, by the names of the checks."""
    (table,) = re.findall(r"^\| check \|.*\n(?:\|.*\n)*", PAGE, re.MULTILINE)
    header, _, *rows = (line.strip("| ") for line in table.splitlines())
    assert tuple(header.split(" | ")[1:]) == STATES
    cells = [row.split(" | ") for row in rows]
    return {row[0]: row[1 + STATES.index(state)] for row in cells}


class Server:
    """A server with two models, and its checks."""

    def __init__(self, process: Process, port: int, http_port: int) -> None:
        self.process, self.address, self.url = process, f"127.0.0.1:{port}", f"http://127.0.0.1:{http_port}"

    def check(self, name: str) -> str:
        with grpc.insecure_channel(self.address) as channel:
            answer = HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def get(self, path: str) -> str:
        return str(requests.get(self.url + path, timeout=10).status_code)

    def is_ready(self, rpc: str, name: str = "") -> bool:
        """Returns the only field of an answer of the Open Inference Protocol, a boolean, as protobuf encodes it."""
        request = b"\x0a" + bytes([len(name)]) + name.encode() if name else b""
        with grpc.insecure_channel(self.address) as channel:
            stub: Any = channel.unary_unary(f"/inference.GRPCInferenceService/{rpc}")
            answer = stub(request, timeout=10)
        return bool(answer) and answer[-1] == 1

    def compare(self, state: str) -> None:
        """Compares what the checks answer with the page."""
        for name, cell in column(state).items():
            expected = cell.partition(" until it is loaded")[0]
            is_of_model = "model" in name or "NAME" in name
            if "until it is loaded" in cell:
                assert is_of_model
                for path in paths(name, LOADED):
                    assert self.get(path) == "200"
                assert self.check(LOADED) == "SERVING"
            if name.startswith("Check"):
                names = [LOADS] if is_of_model else ["", "MLflow"]
                assert {self.check(checked) for checked in names} == {expected}, (state, name)
            else:
                assert {self.get(path) for path in paths(name, LOADS)} == {expected}, (state, name)
        over_grpc = (self.is_ready("ServerReady"), self.is_ready("ModelReady", LOADS), self.is_ready("ServerLive"))
        over_http = (self.get("/v2/health/ready"), self.get(f"/v2/models/{LOADS}/ready"), self.get("/v2/health/live"))
        assert over_grpc == tuple(status == "200" for status in over_http)


def paths(name: str, model: str) -> list[str]:
    """Returns the paths in the first cell of a row."""
    return [path.replace("NAME", model) for path in re.findall(r"`(/.*?)`", name)]


@contextmanager
def started(folder: Path, gate: Path, *flags: str) -> Iterator[Server]:
    """Starts a server, whose second model waits at load if there is a gate."""
    file, ports = folder / "models.yaml", (free_port(), free_port())
    module = "tests.support.quick_stepper"
    file.write_text(
        f"models:\n"
        f"  - {{class_path: {module}.Stepper, name: {LOADED}}}\n"
        f"  - {{class_path: {module}.Gated, name: {LOADS}, configuration: {{gate: {gate}}}}}\n"
    )
    flags = ("--config", str(file), "-p", str(ports[0]), "--http-port", str(ports[1]), *flags)
    with start_server(*flags) as process:
        yield Server(process, *ports)


def test_a_server_that_loads_serves_and_stops(tmp_path):
    """The checks answer as the page says while a model loads, while the server serves, and in its lame duck phase."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with started(tmp_path, gate, "--lame-duck", "60") as server:
        server.process.wait_for("gated: loading now")
        server.compare("a model loads")
        gate.write_text("go")
        ready_address(server.process)
        server.compare("serving")
        server.process.signal(signal.SIGTERM)
        server.process.wait_for("lame duck: NOT_SERVING")
        server.compare("lame duck")


@pytest.mark.deep
def test_a_server_whose_threads_hang(tmp_path):
    """The checks answer as the page says, and a call waits for its deadline, or for --timeout if that is shorter."""
    with (
        started(tmp_path, tmp_path / "no-gate", "--threads", "1", "--timeout", "1") as server,
        Caller(ready_address(server.process)) as call,
        ThreadPoolExecutor(6) as pool,
    ):
        for name in (LOADED, LOADS):
            for _ in range(5):
                list(pool.map(lambda text, name=name: call.outcome(text, mlflow_model=name), [payload("hang")] * 3))
        server.process.wait_for("held by a call that does not end", times=2)
        server.compare("hung calls hold all threads")
        request = protos.Input(value=payload("a")).SerializeToString()
        for timeout_s, message in ((0.5, ""), (30, "time limit of 1 s")):
            with pytest.raises(grpc.RpcError) as failed:
                call.raw(request, timeout=timeout_s, metadata=(("mlflow-model", LOADED),))
            error: Any = failed.value
            assert (error.code(), message in error.details()) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)
