"""buf curl as an independent client of the typed service: it knows nothing but what reflection tells."""

import json
import re
import subprocess
from pathlib import Path
from shutil import copytree

import pandas as pd
import pytest

from tests.client.test_node import tool
from tests.support.servers import ROOT

SERVICE = "model_grpc_service.ModelgRPCService"


@pytest.fixture(scope="session")
def buf(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The command, in a version of our choice."""
    folder = tmp_path_factory.mktemp("buf") / "buf"
    copytree(ROOT / "tests" / "support" / "buf", folder)
    command = [
        tool("npm"),
        "install",
        "--no-package-lock",
        "--prefer-offline",
        "--no-audit",
        "--no-fund",
        "--no-update-notifier",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(folder / "node_modules" / ".bin" / "buf")


def curl(buf: str, address: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of buf curl."""
    command = [buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments]
    command.append(
        f"http://{address}/{SERVICE}/iris_predict" if "--list-methods" not in arguments else f"http://{address}"
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=Path("/"))
    return done.returncode, done.stdout + done.stderr


def test_it_lists_the_methods(buf, iris):
    """All services, the typed one among them."""
    code, out = curl(buf, iris.address, "--list-methods")
    assert code == 0
    assert {f"{SERVICE}/get_models", f"{SERVICE}/iris_predict", "MLflow/predict"} <= set(out.split())


def test_it_calls_the_typed_rpc(buf, iris):
    """The README's record and answer, and what the model says in Python."""
    (record,) = re.findall(r"-d '(\{.*\})' \\", (ROOT / "README.md").read_text())
    code, out = curl(buf, iris.address, "-d", record)
    (expected,) = iris.model.predict(pd.DataFrame([json.loads(record)]), None)
    assert (code, json.loads(out)) == (0, {"prediction": expected})


def test_it_is_told_what_is_missing(buf, iris):
    """The columns, by name."""
    code, out = curl(buf, iris.address, "-d", '{"sepal_length_cm": 5.1}')
    assert code != 0
    assert json.loads(out)["code"] == "invalid_argument"
    assert "petal_width_cm: missing" in json.loads(out)["message"]
