"""The client in a Python in which the server need not be installed (`make test-client`)."""

import subprocess
from pathlib import Path

import pytest

from tests.support.servers import ROOT

pytestmark = pytest.mark.slow


@pytest.mark.deep
def test_the_client_alone(iris, request, tmp_path):
    """The client calls a server from a Python with nothing but the client: that of --client-python, or this one."""
    python = Path(request.config.getoption("--client-python")).absolute()
    done = subprocess.run(
        [python, "-W", "error", ROOT / "tests" / "client" / "alone.py", iris.address],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("answered in Python")


def test_the_command_alone(iris, request):
    """The client's command calls a server from a Python that has only the client."""
    python = Path(request.config.getoption("--client-python")).absolute()
    payload = (iris.path / "serving_input_example.json").read_text()
    done = subprocess.run(
        [python, "-m", "mlflow_grpc_client", "--address", iris.address, payload],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout == '{"predictions": ["setosa", "setosa"]}\n', done.stderr
