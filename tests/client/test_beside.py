"""Coexistence of the client with a program's other libraries: imports, registrations and leaks."""

import gc
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from grpc_tools import protoc

from tests.support.models import FunctionModel, PlainCodec
from tests.support.servers import ROOT, serving

pytestmark = pytest.mark.slow


def python(code: str, *arguments: str) -> str:
    """Runs code in a new Python process and returns its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def address():
    with serving(FunctionModel(lambda text: text), PlainCodec()) as server:
        yield server.address


def test_it_imports_no_heavy_library(address):
    """Using the client imports neither MLflow, pandas nor numpy."""
    code = """
import sys
from mlflow_grpc_client import Client
with Client(sys.argv[1]) as client:
    assert client.predict([1]) == {"inputs": [1]}
    assert client.health() == "SERVING"
print([name for name in ("mlflow", "mlflow_grpc", "pandas", "numpy", "google.rpc") if name in sys.modules])
"""
    assert python(code, address) == "[]"


OURS = "from mlflow_grpc_client import Client"
THEIRS = "import mlflow_pb2, mlflow_pb2_grpc; from google.rpc import error_details_pb2; from grpc_health.v1 import health_pb2"


@pytest.mark.parametrize("imports", [[OURS, THEIRS], [THEIRS, OURS]], ids=["ours first", "theirs first"])
def test_a_programs_own_stubs(address, tmp_path, imports):
    """Stubs made from mlflow.proto, in protobuf's default pool, work in the same process."""
    flags = [f"-I{ROOT}", f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}", "mlflow.proto"]
    assert protoc.main(["protoc", *flags]) == 0
    code = f"""
import sys
sys.path.insert(0, sys.argv[2])
{chr(10).join(imports)}
import grpc
with grpc.insecure_channel(sys.argv[1]) as channel, Client(sys.argv[1]) as client:
    stub = mlflow_pb2_grpc.MLflowStub(channel)
    print(stub.predict(mlflow_pb2.Input(value="theirs")).value, client.predict_text("ours"))
"""
    assert python(code, address, str(tmp_path)) == "theirs ours"


def test_optimised_and_isolated(address):
    """The client needs neither assertions, the environment nor the current directory."""
    code = "import sys; from mlflow_grpc_client import Client; print(Client(sys.argv[1]).predict_text('x'))"
    done = subprocess.run(
        [sys.executable, "-OO", "-I", "-c", code, address],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd="/",
    )
    assert done.stdout == "x\n"


def test_clients_leak_no_files_or_threads(client_class, address):
    """After 50 clients were opened, used and closed, no file or thread of theirs is left.

    A few may remain, because gRPC's own thread pool grows and shrinks with the load of the machine.
    """

    def use():
        with client_class(address) as client:
            assert client.predict_text("x") == "x"

    def count():
        gc.collect()
        files, tasks = (len(list(Path(f"/proc/self/{name}").iterdir())) for name in ("fd", "task"))
        return files, tasks, threading.active_count()

    for _ in range(5):
        use()
    before = count()
    for _ in range(50):
        use()
    deadline = time.monotonic() + 30
    while any(now > then + 5 for now, then in zip(count(), before, strict=True)):
        assert time.monotonic() < deadline, (before, count())
