"""The Node example, installed from its lock file and run."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from tests.support.node import npm, tool
from tests.support.servers import ROOT, free_port
from tests.support.shared import made_once

pytestmark = pytest.mark.slow

EXAMPLE = ROOT / "client" / "examples" / "node"
FLOWERS = pd.DataFrame(
    [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]],
    columns=["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"],
)


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with its dependencies, beside a copy of mlflow.proto as in the repository."""

    def install(root: Path) -> None:
        copy = root / EXAMPLE.relative_to(ROOT)
        shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("node_modules"))
        shutil.copy(ROOT / "mlflow.proto", root)
        npm(copy, "ci")

    # Two other modules import this fixture, which pytest makes for each module.
    return made_once(tmp_path_factory, "node", install) / EXAMPLE.relative_to(ROOT)


def predict(example: Path, *arguments: str) -> tuple[int, str, str]:
    """Returns exit code, stdout and stderr of predict.mjs, run in another directory."""
    command = [tool("node"), str(example / "predict.mjs"), *arguments]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def payload(frame: pd.DataFrame) -> str:
    return json.dumps({"dataframe_split": frame.to_dict(orient="split", index=False)})


def test_it_prints_the_models_prediction(example, iris):
    """The Node example prints the prediction that the model makes in Python."""
    code, out, error = predict(example, "--address", iris.address, payload(FLOWERS))
    assert (code, error) == (0, "")
    assert json.loads(out) == {"predictions": iris.model.predict(FLOWERS, None).tolist()}


def test_it_accepts_another_proto(example, iris, tmp_path):
    """The Node example takes the path of mlflow.proto as an argument."""
    shutil.copy(ROOT / "mlflow.proto", tmp_path)
    code, out, _ = predict(
        example, "--address", iris.address, "--proto", str(tmp_path / "mlflow.proto"), payload(FLOWERS)
    )
    assert code == 0
    assert json.loads(out)["predictions"]


def test_it_prints_the_details_of_an_error(example, iris):
    """The output has code, message, reason, request id and the columns at fault."""
    code, out, error = predict(example, "--address", iris.address, payload(FLOWERS.drop(columns="petal_width_cm")))
    first, second, third = error.splitlines()
    assert (code, out) == (1, "")
    assert first.startswith("INVALID_ARGUMENT: The payload does not fit")
    assert re.fullmatch(r"  reason: [A-Z_]+, request id: \w+", second)
    assert third.startswith("  petal_width_cm: missing")


def test_it_reports_a_missing_server(example):
    """The Node example prints code and message if there is no server."""
    code, out, error = predict(example, "--address", f"127.0.0.1:{free_port()}", "{}")
    assert (code, out) == (1, "")
    assert error.startswith("UNAVAILABLE: ")


def test_wrong_usage(example):
    """Wrong arguments end the Node example with exit code 2 and the usage."""
    code, out, error = predict(example)
    assert (code, out) == (2, "")
    assert error.startswith("usage: node predict.mjs")


@pytest.mark.parametrize("program", ["predict.mjs", "typed.mjs"])
@pytest.mark.parametrize(
    ("flag", "problem"), [("--adress", "Unknown option '--adress'"), ("--address", "Option '--address")]
)
def test_wrong_flags(example, program, flag, problem):
    """An unknown flag, or one without its value, is one line with the usage and exit code 2."""
    command = [tool("node"), str(example / program), flag]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(problem)
    assert f"usage: node {program}" in line


def test_typed_calls_without_the_proto_file(example):
    """The Node example for typed calls says how to write the .proto file that it lacks."""
    command = [tool("node"), str(example / "typed.mjs")]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.endswith("mlflow-grpc-predict --proto -o model_service.proto")


@pytest.mark.parametrize("name", ["node", "node-flight"])
def test_the_lock_file_names_no_registry(name):
    """The lock file of an example works with any mirror."""
    lock = json.loads((EXAMPLE.parent / name / "package-lock.json").read_text())
    packages = [package for name, package in lock["packages"].items() if name]
    assert packages
    assert all("integrity" in package and "resolved" not in package for package in packages)
