"""`mlflow_grpc.serving`: a server for a block of a notebook or a test."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

import mlflow_grpc
from mlflow_grpc.errors import StartError
from tests.process.conftest import QUICK
from tests.support import zoo
from tests.support.servers import ROOT, Process


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "numbers"
    zoo.save("numbers", path)
    return path


def is_running(pid: int) -> bool:
    """Returns True if a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children() -> set[int]:
    """Returns the child processes of this process."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def test_a_block_has_a_server():
    """The client is connected to 127.0.0.1. The server ends with the block, also after an exception."""
    before = children()

    def block() -> None:
        with mlflow_grpc.serving(QUICK, threads=2, batching="off", model_name="mine") as client:
            assert client.address.startswith("127.0.0.1:")
            assert client.health() == "SERVING"
            assert client.predict({"inputs": ["x"]}, model="mine") == ["x"]
            assert len(children() - before) == 1
            raise KeyError("the block")

    with pytest.raises(KeyError, match="the block"):
        block()
    assert children() == before


@pytest.fixture
def tracking(registry, monkeypatch):
    """MLflow in this process has the registry as its tracking server, as after `mlflow.set_tracking_uri`."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # Set by the next call, and restored at the end.
    mlflow.set_tracking_uri(registry)
    yield
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]


@pytest.mark.usefixtures("tracking")
@pytest.mark.timeout(240)  # The registry may have to be created.
def test_a_registered_model():
    """A models:/ URI refers to the tracking server of this process."""
    with mlflow_grpc.serving("models:/churn/1") as client:
        assert [model.label for model in client.models()] == ["churn/1"]
        assert client.predict({"inputs": ["x"]}) == ["x"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_the_server_ends_with_its_parent(number):
    """The server ends with its parent, however that ends. An interrupt is for the block, which then ends the server."""
    code = f"""
import pathlib, os, signal, mlflow_grpc
signal.signal(signal.SIGINT, signal.default_int_handler)
with mlflow_grpc.serving({QUICK!r}) as client:
    print("pid", pathlib.Path(f"/proc/self/task/{{os.getpid()}}/children").read_text(), flush=True)
    signal.pause()
"""
    with Process([sys.executable, "-c", code]) as parent:
        child = int(parent.wait_for(r"pid (\d+)")[1])
        assert is_running(child)
        parent.signal(number)
        parent.wait()
        wait_for_end(child)
    assert not is_running(child)


def wait_for_end(pid: int) -> None:
    """Waits until a process that is not a child has ended, within the time limit of a test."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([descriptor], [], [], 30)
    finally:
        os.close(descriptor)
    assert ready, "the server goes on"


def test_a_failed_start_raises_with_the_log(model):
    """StartError has the lines of the log; unknown settings are refused at once."""
    absent = QUICK.replace("Stepper", "Absent")
    with pytest.raises(StartError, match=r"the server ended before it was ready, with exit code 2:\n(?s:.)*Absent"):
        mlflow_grpc.serving(absent).__enter__()
    with pytest.raises(StartError, match=r"--threads"):
        mlflow_grpc.serving(model, threads=0).__enter__()
    with pytest.raises(TypeError, match=r"serving\(\) has no argument thread: did you mean threads\?"):
        mlflow_grpc.serving(model, thread=1).__enter__()
    with pytest.raises(TypeError, match=r"not dict: .*such as mlflow\.sklearn\.save_model\(model, directory\)"):
        mlflow_grpc.serving({}).__enter__()
    with pytest.raises(TypeError, match=r"serving\(\) needs a model: a directory, a URI such as models:/name/1"):
        mlflow_grpc.serving().__enter__()


def test_a_start_timeout_ends_the_server(model):
    """`serving` ends a server that is not ready in time, and raises an error."""
    before = children()
    with pytest.raises(StartError, match=r"the server was not ready within 0.01 s:"):
        mlflow_grpc.serving(model, start_timeout_s=0.01).__enter__()
    assert children() == before


def test_importing_it_is_cheap():
    """The package imports neither grpc, MLflow nor pydantic. Without the client, `serving` says what to install."""
    code = """
import sys, mlflow_grpc
print([name for name in ("grpc", "mlflow", "mlflow_grpc_client", "pydantic", "subprocess") if name in sys.modules])
sys.modules["mlflow_grpc_client"] = None
try:
    mlflow_grpc.serving("x").__enter__()
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    first, second = done.stdout.splitlines()
    assert first == "[]"
    refusal = "mlflow_grpc.serving gives a client, and mlflow-grpc-client is not installed: pip install"
    assert second == f"{refusal} {ROOT / 'client'}"


def test_lines_of_successful_calls_are_not_shown(capfd):
    """Only warnings and errors go to stderr while the block runs."""
    with mlflow_grpc.serving(QUICK, log_format="text") as client:
        client.predict({"inputs": ["x"]})
        with pytest.raises(Exception, match="does not fit"):
            client.predict({"inputs": [1]})
    logged = capfd.readouterr().err
    assert "SERVING" not in logged
    assert "status=OK" not in logged
