"""The code blocks of pages about calls, files and caches run against servers of the example model."""

import contextlib
import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, Schema

from tests.support.servers import ROOT, Forked, ForkedDeployments, ready_address

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SCRIPTS = Path(sys.executable).parent
FLOWER = {"sepal_length_cm": 5.1, "sepal_width_cm": 3.5, "petal_length_cm": 1.4, "petal_width_cm": 0.2}


def blocks(page: str, language: str) -> list[str]:
    """Returns the code blocks of a page in a language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    return [code for name, code in fenced if name == language]


def lines(page: str) -> list[str]:
    """Returns the shell commands of a page, with continued lines in one."""
    return "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()


def sh(command: str, cwd: Path, *, exit_code: int = 0) -> tuple[str, str]:
    """Runs a command in bash with the commands of this environment, and returns its stdout and stderr."""
    environment = {**os.environ, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}", "GRPC_VERBOSITY": "NONE"}
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd,
        timeout=120,
        check=False,
    )
    assert done.returncode == exit_code, done.stderr
    return done.stdout, done.stderr


def printed_by(code: str) -> str:
    """Runs Python code and returns what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(code, "page", "exec"), {"__name__": "__main__"})  # noqa: S102
    return output.getvalue()


@pytest.fixture(scope="module")
def served(iris_path: Path) -> Iterator[tuple[str, str]]:
    """The gRPC and the HTTP address of a server of the example model."""
    with Forked(["serve", "-m", str(iris_path), "--model-name", "iris", "-p", "0", "--http-port", "0"]) as process:
        yield ready_address(process), process.wait_for(r"HTTP on (http://\S+?);")[1]


@pytest.fixture
def folder(iris_path: Path, tmp_path: Path) -> Path:
    """A working directory with the example model where a clone has it."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "iris").symlink_to(iris_path)
    return tmp_path


def test_the_page_about_caches(folder):
    """The configuration is served, and three equal calls are one miss and two hits, as the page shows."""
    (configuration,) = blocks("docs/cache.md", "yaml")
    (folder / "cache.yaml").write_text(configuration)
    (serve, *calls) = lines("docs/cache.md")
    assert serve == "mlflow-grpc serve --config cache.yaml -p 50057 --http-port 8087"
    with Forked(["serve", "--config", "cache.yaml", "-p", "0", "--http-port", "0"], cwd=folder) as process:
        ready_address(process)
        url = process.wait_for(r"HTTP on (http://\S+?);")[1]
        answers, _ = sh("\n".join(calls).replace("http://127.0.0.1:8087", url), folder)
    (shown,) = blocks("docs/cache.md", "")
    assert answers == shown


@pytest.mark.deep
def test_the_page_about_files(served, folder, monkeypatch):
    """Files are scored with and without a server; a bad row stops a run, and is left out of the next."""
    pandas = pytest.importorskip("pandas")
    monkeypatch.chdir(folder)
    (files,) = blocks("docs/batch.md", "python")
    printed_by(files)
    with_server, without, stopped, resumed = lines("docs/batch.md")
    at = f"mlflow-grpc-predict score --address {served[0]}"
    sh(with_server.replace("mlflow-grpc-predict score", at), folder)
    sh(without, folder)
    expected = [{"id": index, "prediction": "setosa"} for index in range(10)]
    assert pandas.read_parquet(folder / "predictions.parquet").to_dict("records") == expected
    with (folder / "predictions.csv").open() as file:
        assert [{**row, "id": int(row["id"])} for row in csv.DictReader(file)] == expected
    _, error = sh(stopped.replace("mlflow-grpc-predict score", at), folder, exit_code=1)
    (shown,) = blocks("docs/batch.md", "")
    assert shown in error
    sh(resumed.replace("mlflow-grpc-predict score", at), folder, exit_code=3)
    (fault,) = blocks("docs/batch.md", "json")
    assert json.loads((folder / "checked.jsonl.errors.jsonl").read_text()) == json.loads(fault)
    checked = [json.loads(line) for line in (folder / "checked.jsonl").read_text().splitlines()]
    assert checked == [{**row, "id": str(row["id"])} for row in expected if row["id"] != 7]  # From CSV: texts.


@pytest.mark.deep
def test_the_page_about_deployments(served, folder):
    """The commands succeed, the prediction is the page's, and the Python block prints a DataFrame."""
    page = "docs/deployments-plugin.md"
    (folder / "input.json").write_text(blocks(page, "json")[0])
    commands = [line for line in lines(page) if line.startswith("mlflow deployments") and "run-local" not in line]
    assert len(commands) == 4
    for command in commands:
        arguments = command.replace("localhost:50051", served[0]).split()[2:]
        with ForkedDeployments(arguments, cwd=folder) as process:
            assert process.wait() == 0, process.output
    shown = re.search(r"`out.json` has `(.*)`", (ROOT / page).read_text())
    assert shown
    assert json.loads((folder / "out.json").read_text()) == json.loads(shown[1])
    (code,) = blocks(page, "python")
    assert "setosa" in printed_by(code.replace("localhost:50051", served[0]))


def test_a_token_in_a_file(folder):
    """A token that never was on a screen is in the file of the server, and the command calls with it."""
    (make,) = [code for code in blocks("docs/access.md", "sh") if "--stdin" in code]
    (call,) = [code for code in blocks("docs/access.md", "sh") if "--token-file" in code]
    sh(make, folder)
    with Forked(["serve", "-m", "models/iris", "--auth-tokens", "tokens.txt", "-p", "0"], cwd=folder) as process:
        printed, _ = sh(call.replace("localhost:50058", ready_address(process)), folder)
    assert json.loads(printed) == {"predictions": ["setosa", "setosa"]}


def test_the_pages_about_http_and_operations(served, folder):
    """curl gets the answers of the examples and the metrics, and the channel with another policy is made."""
    page = [line.replace("localhost:8085", served[1]) for line in lines("docs/http.md")]
    (as_json,) = [line for line in page if "serving_input_example" in line]
    assert json.loads(sh(as_json, folder)[0])["predictions"] == ["setosa"] * 2
    assert (
        "415"
        in sh(as_json.replace("-H 'content-type: application/json'", "-s -o /dev/null -w '%{http_code}'"), folder)[0]
    )
    make, as_csv = (line for line in page if "payload.csv" in line)
    assert json.loads(sh(f"{make}\n{as_csv}", folder)[0]) == {"predictions": ["setosa"]}
    assert "error_code" in sh(as_csv.replace("--data-binary", "-d"), folder)[0]  # Without its line breaks.
    _, error = sh(as_json.replace(served[1], served[0]), folder, exit_code=1)
    (shown,) = re.findall(r"If curl says `(.*)`", (ROOT / "docs" / "http.md").read_text())
    assert shown in error
    (command,) = [line for line in lines("docs/operations.md") if line.startswith("curl")]
    assert "mlflow_grpc_build_info" in sh(command.replace("http://127.0.0.1:8080", served[1]), folder)[0]
    (code,) = blocks("docs/operations.md", "python")
    printed_by(f"{code}channel.close()\n")


@pytest.mark.deep
def test_the_server_for_a_notebook(folder, monkeypatch):
    """The block that starts a server of its own prints what its comment says."""
    monkeypatch.chdir(folder)
    (code,) = [code for code in blocks("docs/clients.md", "python") if "serving" in code]
    assert printed_by(code).split() == re.findall(r"print\(.*\)  # (.*)$", code, re.MULTILINE)


def test_commands_of_the_client(served, folder):
    """The commands on the pages of the client print the answer, the health, the model and its .proto file."""
    commands = [*lines("client/README.md"), *lines("docs/clients.md"), *lines("docs/languages.md")]
    commands += [line for line in lines("docs/typed.md") if line.startswith("mlflow-grpc-predict")]
    for line in commands:
        if re.match(r"(echo|printf) ", line):
            sh(line, folder)
    commands = [line for line in commands if "mlflow-grpc-predict" in line and "models.example" not in line]
    commands = [line for line in commands if "-m chat" not in line and "client/examples" not in line]
    assert len(commands) == 16
    for command in commands:
        here = re.sub(r" --address \S+", "", command).replace("grpc-predict", f"grpc-predict --address {served[0]}", 1)
        printed, _ = sh(here, folder)
        file = re.search(r"(?:-o|>) (\S+)$", command)
        assert (folder / file[1]).stat().st_size if file else printed, command
        if "sepal_length_cm" in command or "payload.csv" in command:
            assert "setosa" in printed
    assert (folder / "answers.jsonl").read_text() == '{"predictions": ["setosa"]}\n'
    assert "rpc iris_predict" in (folder / "model_service.proto").read_text()


def save_flowers(path: Path, *columns: ColSpec) -> None:
    """Saves a model with other columns, which calls every flower setosa."""

    class Flowers(PythonModel):
        def predict(self, context, model_input, params=None):
            return ["setosa"] * len(model_input)

    signature = ModelSignature(Schema(list(columns)), Schema([ColSpec("string")]))
    mlflow.pyfunc.save_model(path, python_model=Flowers(), signature=signature, pip_requirements=["mlflow"])


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore")
def test_the_lock_of_typed_messages(folder):
    """A lock is written, and the verdicts about the next two versions and their messages are those of the page."""
    double, page = [ColSpec("double", name) for name in FLOWER], "docs/typed.md"
    save_flowers(folder / "models" / "iris-2", *reversed(double), ColSpec("string", "garden", required=False))
    narrower = [ColSpec("float" if name == "petal_length_cm" else "double", name) for name in FLOWER]
    save_flowers(folder / "models" / "iris-3", *narrower)
    (write,) = [line for line in lines(page) if "--lock" in line and line.startswith("mlflow-grpc proto")]
    locked, second, third = [code for code in blocks(page, "") if "buf curl" not in code][:3]

    def run(command: str, exit_code: int = 0) -> list[str]:
        with Forked(command.split()[1:], cwd=folder) as process:
            assert process.wait() == exit_code, process.output
        return process.stdout

    def message() -> str:
        text = Path(folder / "model_service.proto").read_text()
        return text[text.index("message iris_input {") :].partition("\n}\n")[0] + "\n}\n"

    run(write)
    assert locked.strip() in (folder / "model_service.lock.json").read_text()
    for version, exit_code, shown in (("iris-2", 0, second), ("iris-3", 1, third)):
        (console,) = [code for code in blocks(page, "console") if version in code]
        command, *verdict = console.splitlines()
        assert run(command.removeprefix("$ "), exit_code) == verdict
        run(write.replace("models/iris", f"models/{version}"))
        assert message() == shown
