"""The Node example of Arrow Flight, installed from its lock file and run: a client with Arrow's library for JavaScript."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from tests.support.node import npm, tool
from tests.support.servers import ROOT
from tests.support.shared import made_once

pytestmark = pytest.mark.slow

EXAMPLE = ROOT / "client" / "examples" / "node-flight"
PROTO = ROOT / "mlflow_grpc" / "protos" / "arrow" / "flight" / "flight.proto"
FLOWERS = [
    {"sepal_length_cm": 5.1, "sepal_width_cm": 3.5, "petal_length_cm": 1.4, "petal_width_cm": 0.2},
    {"sepal_length_cm": 6.7, "sepal_width_cm": 3.0, "petal_length_cm": 5.2, "petal_width_cm": 2.3},
]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with its dependencies, beside a copy of flight.proto as in the repository."""

    def install(root: Path) -> None:
        for path in (EXAMPLE, PROTO.parent):
            shutil.copytree(path, root / path.relative_to(ROOT), ignore=shutil.ignore_patterns("node_modules"))
        npm(root / EXAMPLE.relative_to(ROOT), "ci")

    return made_once(tmp_path_factory, "node_flight", install) / EXAMPLE.relative_to(ROOT)


def predict(example: Path, *arguments: str) -> tuple[int, str, str]:
    """Returns exit code, stdout and stderr of flight.mjs, run in another directory."""
    command = [tool("node"), str(example / "flight.mjs"), *arguments]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.deep
def test_it_prints_the_models_predictions(example, iris):
    """A table that Arrow's JavaScript library makes from the model's schema gets the answers of the model in Python."""
    code, out, error = predict(example, "--address", iris.address, "iris", json.dumps(FLOWERS))
    assert (code, error) == (0, "")
    expected = iris.model.predict(pd.DataFrame(FLOWERS), None).tolist()
    assert [row["prediction"] for row in json.loads(out)] == expected


def test_the_command_in_the_docs(example, iris):
    """The command in docs/flight.md has the output in docs/flight.md."""
    page = (ROOT / "docs" / "flight.md").read_text()
    ((rows, output),) = re.findall(r"flight\.mjs .* iris '(.*)'\n```\n\nThe output is `(.*)`", page)
    assert predict(example, "--address", iris.address, "iris", rows) == (0, f"{output}\n", "")


def test_it_prints_errors(example, iris):
    """A model that does not exist ends it with the code and the message of the server."""
    code, out, error = predict(example, "--address", iris.address, "nobody", json.dumps(FLOWERS))
    assert (code, out) == (1, "")
    assert error.startswith("NOT_FOUND: ")
    assert "no such model" in error


def test_wrong_usage(example):
    """Wrong arguments end the example with exit code 2 and the usage."""
    code, out, error = predict(example)
    assert (code, out) == (2, "")
    assert error.startswith("usage: node flight.mjs")
    code, out, error = predict(example, "--adress", "localhost:50051", "iris", "[]")
    (line,) = error.splitlines()
    assert (code, out) == (2, "")
    assert line.startswith("Unknown option '--adress'; usage: node flight.mjs")
