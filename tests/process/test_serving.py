"""`mlflow_grpc.serving`: a server for a block of a notebook or a test."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

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
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children() -> set[int]:
    """The processes that this one has started."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def test_a_block_has_a_server(model):
    """A client that is connected, at 127.0.0.1; the server ends with the block, also if that raises."""
    before = children()
    row = {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2.5]]}}

    def block() -> None:
        with mlflow_grpc.serving(model, threads=2, batching="off", model_name="mine") as client:
            assert client.address.startswith("127.0.0.1:")
            assert client.health() == "SERVING"
            assert client.predict(row, model="mine")["input"]["cells"] == [["int 1"], ["float 2.5"]]
            assert len(children() - before) == 1
            raise KeyError("the block")

    with pytest.raises(KeyError, match="the block"):
        block()
    assert children() == before


@pytest.mark.timeout(240)  # Two processes import MLflow one after the other, and the registry may have to be made.
def test_a_registered_model(registry, tmp_path):
    """A models:/ URI, of the tracking server that this process uses."""
    code = f"""
import mlflow, mlflow_grpc
mlflow.set_tracking_uri({registry!r})
with mlflow_grpc.serving("models:/churn/1") as client:
    print([model.label for model in client.models()])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=230, check=False, cwd=tmp_path
    )
    assert done.stdout == "['churn/1']\n", done.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_process_that_ends_takes_its_server_along(number):
    """However it ends; an interrupt is for the block, which ends the server in its turn."""
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
    """Returns when a process that is no child of this one has ended, within the time that a test has."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([descriptor], [], [], 30)
    finally:
        os.close(descriptor)
    assert ready, "the server goes on"


def test_a_server_that_cannot_start(tmp_path, model):
    """StartError with the lines of its log; settings that are none are refused at once."""
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    with pytest.raises(StartError, match=r"the server ended before it was ready, with exit code 2:\n(?s:.)*flavor"):
        mlflow_grpc.serving(tmp_path).__enter__()
    with pytest.raises(StartError, match=r"--threads"):
        mlflow_grpc.serving(model, threads=0).__enter__()
    with pytest.raises(TypeError, match=r"serving\(\) has no argument thread: did you mean threads\?"):
        mlflow_grpc.serving(model, thread=1).__enter__()
    with pytest.raises(TypeError, match=r"no dict: .*such as mlflow\.sklearn\.save_model\(model, directory\)"):
        mlflow_grpc.serving({}).__enter__()
    with pytest.raises(TypeError, match=r"serving\(\) needs a model: a directory, a URI such as models:/name/1"):
        mlflow_grpc.serving().__enter__()


def test_a_server_that_is_not_ready_in_time(model):
    """It is ended, and so is the wait."""
    before = children()
    with pytest.raises(StartError, match=r"the server was not ready within 0.01 s:"):
        mlflow_grpc.serving(model, start_timeout_s=0.01).__enter__()
    assert children() == before


def test_importing_it_is_cheap():
    """The package imports neither grpc nor MLflow, nor pydantic; without the client `serving` says what to install."""
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


def test_the_log_of_good_calls_is_not_shown(capfd):
    """Only warnings and errors go to stderr while the block runs."""
    with mlflow_grpc.serving(QUICK, log_format="text") as client:
        client.predict({"inputs": ["x"]})
        with pytest.raises(Exception, match="does not fit"):
            client.predict({"inputs": [1]})
    logged = capfd.readouterr().err
    assert "SERVING" not in logged
    assert "status=OK" not in logged
