"""The C++ example of Arrow Flight, compiled with the headers and libraries that pyarrow brings, and run.

Not part of `make test`; `make interop` lists what it needs.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pandas as pd
import pytest

from tests.client.test_interop import run, tool
from tests.support.servers import ROOT

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

EXAMPLE = ROOT / "client" / "examples" / "cpp-flight" / "flight.cpp"
COLUMNS = ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"]
FLOWERS = pd.DataFrame([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], columns=COLUMNS)


def commands() -> tuple[str, str, str]:
    """Returns the commands and the output in docs/flight.md: compile, call, predictions."""
    page = (ROOT / "docs" / "flight.md").read_text()
    compiling, calling, output = re.findall(
        r"```sh\n(ARROW=.*?)```.*?```sh\n(.*?)```\n\n```text\n(.*?)```", page, re.S
    )[0]
    return compiling, calling, output


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example, compiled by the command in docs/flight.md."""
    tool("g++")
    folder = tmp_path_factory.mktemp("cpp-flight")
    copy = folder / EXAMPLE.relative_to(ROOT)
    copy.parent.mkdir(parents=True)
    shutil.copy(EXAMPLE, copy)
    # The page's commands run in an activated environment, whose python has pyarrow.
    activated = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    run("sh", "-ec", commands()[0], cwd=folder, PATH=activated)
    return folder


def predict(example: Path, *arguments: str, rows: str = "") -> tuple[int, str, str]:
    """Returns exit code, stdout and stderr of the example, with rows on its standard input."""
    command = [str(example / "flight"), *arguments]
    done = subprocess.run(command, input=rows, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def lines_of(frame: pd.DataFrame) -> str:
    """Returns rows as JSON lines."""
    return "".join(f"{json.dumps(row)}\n" for row in frame.to_dict("records"))


def test_it_prints_the_models_predictions(example, iris):
    """Rows in the types of the model's schema get the answers of the model in Python, in their order."""
    many = pd.concat([FLOWERS] * 5_000, ignore_index=True)
    for rows in (FLOWERS, many):
        code, out, error = predict(example, "--address", iris.address, "iris", rows=lines_of(rows))
        assert (code, error) == (0, "")
        expected = iris.model.predict(rows, None).tolist()
        assert [row["prediction"] for row in csv.DictReader(out.splitlines())] == expected


def test_the_command_in_the_docs(example, iris):
    """The command in docs/flight.md has the output in docs/flight.md."""
    _, calling, output = commands()
    assert run("sh", "-ec", calling.replace("localhost:50051", iris.address), cwd=example) == output


def test_it_prints_errors(example, iris):
    """A model that does not exist ends it with the message of the server."""
    code, out, error = predict(example, "--address", iris.address, "nobody", rows=lines_of(FLOWERS))
    assert (code, out) == (1, "")
    assert "no such model" in error


def test_errors_of_an_exchange(example, iris):
    """Rows that the model refuses end it with the message of the server."""
    rows = lines_of(FLOWERS.drop(columns="petal_width_cm"))
    code, out, error = predict(example, "--address", iris.address, "iris", rows=rows)
    assert (code, out) == (1, "")
    assert "petal_width_cm" in error


def test_wrong_usage(example):
    """Wrong arguments end the example with exit code 2 and the usage."""
    code, out, error = predict(example)
    assert (code, out) == (2, "")
    assert error.startswith("usage: flight")
