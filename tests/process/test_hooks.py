"""Functions before and after a model, in a server process, as in docs/models.md."""

import re
import runpy
import shlex

import pytest

from tests.support.servers import ROOT, Caller, Forked, Process, ready_address

DOCS = (ROOT / "docs" / "models.md").read_text()


(BLOCK,) = re.findall(r"^```sh\n(mkdir -p code\n.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
SCRIPT = BLOCK.rstrip() + " -p 0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory with the example model."""
    folder = tmp_path_factory.mktemp("folder")
    runpy.run_path(str(ROOT / "models" / "train_iris.py"))["main"](folder / "models" / "iris")
    return folder


def started(script, folder):
    """Runs the script up to its last line, which starts a server, and that line as a copy of a process."""
    script, _, command = script.rpartition("\n")
    assert Process(["/bin/sh", "-c", script], cwd=folder).wait() == 0
    variable, _, arguments = command.partition(" mlflow-grpc ")
    assert variable == "PYTHONPATH=code"
    return Forked(shlex.split(arguments), env={"PYTHONPATH": "code"}, cwd=folder)


def test_the_hooks_in_the_docs(folder):
    """The shell commands serve the example model with both functions."""
    with started(SCRIPT, folder) as process, Caller(ready_address(process)) as call:
        rows = "[[51.0, 35.0, 14.0, 2.0], [67.0, 30.0, 52.0, 23.0]]"
        names = '["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"]'
        answer = call(f'{{"dataframe_split": {{"columns": {names}, "data": {rows}}}}}')
        assert answer == '{"predictions": ["SETOSA", "VIRGINICA"]}'


def test_a_missing_function_ends_the_start(folder):
    """A missing function ends the start, with its path."""
    with started(SCRIPT.replace("iris_hooks.postprocess", "iris_hooks.post"), folder) as process:
        assert process.wait() == 2
        assert "iris_hooks.post: the module iris_hooks has no post" in process.output
