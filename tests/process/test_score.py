"""`mlflow-grpc score`: files of rows and a model, without a server."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.pyfunc.model import PythonModel

from tests.process.test_serving import is_running
from tests.support import scored
from tests.support.servers import ROOT, Forked, Process

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")]

INTERRUPTIBLE = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from mlflow_grpc.cli import main; main()",
]


class Waiting(PythonModel):
    """Opens a FIFO at the first call, and then waits for the end of the process."""

    def __init__(self, fifo: str) -> None:
        self._fifo = fifo

    def predict(self, context, model_input, params=None):
        """Waits."""
        if len(model_input) == 5:  # The example of the load has one row.
            with open(self._fifo, "w"):
                pass
            signal.pause()
        return model_input["price"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("scored") / "orders"
    scored.save(scored.Orders(), path, scored.SIGNATURE)
    return path


def score(*arguments):
    """Returns the exit code and stderr."""
    with Forked(["score", *map(str, arguments)]) as run:
        return run.wait(), "\n".join(run.stderr)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.deep)])
def test_a_file_and_a_model(model, tmp_path, processes):
    """The predictions are those of MLflow, in the order of the rows, from one process or several."""
    frame = scored.orders(500)
    frame.to_parquet(tmp_path / "in.parquet")
    code, error = score(
        "-m", model, tmp_path / "in.parquet", "-o", tmp_path / "out.parquet", "--processes", processes, "--rows", 50
    )
    assert code == 0, error
    expected = mlflow.pyfunc.load_model(str(model)).predict(frame[scored.INPUTS])
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "out.parquet"), expected, check_dtype=False, check_exact=True
    )


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["-m", "{model}", "nothing.csv", "-o", "out.csv"], 2, "there is no such file"),
        (["-m", "nowhere", "{input}", "-o", "out.csv"], 2, "\nError: no model at nowhere: "),
        (["{input}", "-o", "out.csv"], 2, "-m/--model-uri"),
        (["-m", "{model}", "{input}", "-o", "out.csv", "--processes", "0"], 2, "not a whole number above 0"),
    ],
)
def test_usage(model, tmp_path, arguments, code, reason):
    """The files are checked before a model is loaded, and a model that cannot be loaded is an error."""
    scored.orders(5).to_csv(tmp_path / "in.csv")
    texts = [text.format(model=model, input=tmp_path / "in.csv") for text in arguments]
    texts = [str(tmp_path / text) if text == "out.csv" else text for text in texts]
    outcome = score(*texts)
    assert (outcome[0], reason in outcome[1]) == (code, True), outcome


def servers_of(pid: int) -> list[int]:
    """Returns the child processes of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.deep
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running(tmp_path, how):
    """The process with the model ends with the command, also when the command is killed in a call."""
    marker = tmp_path / "reached"
    scored.save(Waiting(str(marker)), tmp_path / "model", scored.SIGNATURE)
    scored.orders(5).to_csv(tmp_path / "in.csv")
    os.mkfifo(marker)
    arguments = ["-m", str(tmp_path / "model"), str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.csv")]
    with Process([*INTERRUPTIBLE, "score", *arguments]) as run:
        with marker.open():  # Opens when the model does.
            pass
        servers = servers_of(run.popen.pid)
        assert len(servers) == 1
        run.signal(how)
        assert run.wait() == (-signal.SIGKILL if how == signal.SIGKILL else 130)
        ends = [os.pidfd_open(pid) for pid in servers if is_running(pid)]
        for end in ends:
            assert select.select([end], [], [], 60)[0]
            os.close(end)


def test_help():
    """--help lists the arguments and the exit codes."""
    command = [sys.executable, "-m", "mlflow_grpc", "score", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=True)
    assert "--processes" in done.stdout
    assert "Exit codes: 0 all rows" in done.stdout
