"""The client beside a program's other things: what it imports, registers and leaves behind."""

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
    """Runs code in a Python of its own and gives what it prints."""
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
    """Not even when it is used: a program without MLflow, pandas or numpy can call models."""
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
def test_a_program_s_own_stubs(address, tmp_path, imports):
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
    """It needs neither assertions nor the environment nor the current folder."""
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


def test_nothing_is_left_behind(client_class, address):
    """After 50 more clients were opened, used and closed, there is nothing left of each, be it a file or a thread.

    A few more there may be: gRPC's own pool of threads grows and shrinks with the load on the machine.
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
