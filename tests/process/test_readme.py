"""Commands and examples of README.md, and of the pages that a newcomer reads next, run unchanged."""

import importlib.metadata
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.support.servers import ROOT, Caller, Forked, Process, free_port, ready_address

README = (ROOT / "README.md").read_text()
DEPLOYMENT, GET_STARTED, FROM_MLFLOW, PAYLOADS = (
    (ROOT / "docs" / f"{page}.md").read_text()
    for page in ("deployment", "get-started", "from-mlflow-models-serve", "payloads")
)
PAGES = ["README.md"]
PAGES += [
    f"docs/{page}.md"
    for page in ("deployment", "errors", "get-started", "operations", "own-model", "payloads", "versions")
]
PAGES += [f"docs/from-{origin}.md" for origin in ("a-wrapper", "mlflow-models-serve", "mlserver", "rest-model-service")]
SCRIPTS = Path(sys.executable).parent


def blocks(language, page):
    """Returns the code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def served():
    """`make serve`, on its own ports."""
    port, http_port = free_port(), free_port()
    with Process(
        ["make", "serve", f"PORT={port}", f"HTTP_PORT={http_port}"], env={"PATH": os.environ["PATH"]}
    ) as process:
        assert ready_address(process) == f"127.0.0.1:{port}"
        yield port, process, http_port
        process.signal(signal.SIGTERM)
        process.wait()


def test_make_serve_warns_about_other_versions(model, tmp_path):
    """`make serve MODEL_PATH=...` serves a model that was logged with other patch versions, with one warning line."""
    path = shutil.copytree(model, tmp_path / "elsewhere")
    major_minor = ".".join(importlib.metadata.version("cloudpickle").split(".")[:2])
    (path / "requirements.txt").write_text(f"mlflow\ncloudpickle=={major_minor}.99\n")
    printed = sh(
        f"make --no-print-directory --dry-run serve MODEL_PATH={path} PORT={free_port()} HTTP_PORT={free_port()}"
    )
    variables, _, program = printed.splitlines()[-1].rpartition(" exec ")
    assert program == ".venv/bin/python server.py"
    env = dict(variable.split("=", 1) for variable in shlex.split(variables))
    with Forked(["serve"], env) as process, Caller(ready_address(process)) as call:
        assert call('{"inputs": ["x"]}') == '{"predictions": ["x"]}'
        (line,) = [line for line in process.stderr if "cloudpickle" in line]
        assert f"elsewhere: its requirements differ from what is installed: cloudpickle=={major_minor}.99 (" in line
        process.signal(signal.SIGTERM)
        process.wait()


def sh(command, cwd=ROOT, **env):
    environment = {**os.environ, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}", **env}
    done = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, env=environment, cwd=cwd, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_two_commands(served):
    """`make serve` names `make predict` with its port as the next step, which prints the answer in the README."""
    port, process, _ = served
    assert [line for line in process.stdout if line.endswith(f"make predict PORT={port}")]
    shown = [line for line in README.splitlines() if line.startswith('{"predictions"')]
    assert sh(f"make --no-print-directory predict PORT={port}").splitlines()[-1:] == shown


def test_make_predict_before_make_serve(tmp_path):
    """`make predict` installs nothing beside a `make serve` that is installing. It says what to do first."""
    command = ["make", "--no-print-directory", "predict", f"VENV={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode != 0
    assert "Run make serve first" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_next_step_after_a_model_of_ones_own():
    """It is not `make predict`, whose rows fit only the example model."""
    *_, hint, _ = sh("make --no-print-directory --dry-run serve MODEL_PATH=flowers PORT=50061").splitlines()
    assert hint.endswith(': .venv/bin/mlflow-grpc-predict --address 127.0.0.1:50061 --list"')


def test_make_serve_prints_the_address_of_the_page(served):
    """A browser finds the page, and not only the port, at the address in the output of `make serve`."""
    _, process, http_port = served
    (address,) = {found for line in process.stdout for found in re.findall(r"http://\S*?(?=[\s;,]|$)", line)}
    assert address == f"http://127.0.0.1:{http_port}"
    response = requests.get(address, timeout=30)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_python_blocks_run(served, capsys):
    """Python blocks that call the example model run unchanged except for the port, and print the shown output."""
    port, *_ = served
    pages = (GET_STARTED, FROM_MLFLOW, PAYLOADS)
    calls = [text for page in pages for text in blocks("python", page) if "50051" in text]
    assert len(calls) == 4
    for text in calls:
        exec(compile(text.replace("50051", str(port)), "page", "exec"), {})  # noqa: S102
        assert capsys.readouterr().out.splitlines() == re.findall(r"^ *print\(.*  # (.*)$", text, re.MULTILINE)


def test_the_shell_example_runs(served):
    """The client's command prints the answer, in a shell with only the system's commands."""
    port, *_ = served
    (command,) = [text for text in blocks("sh", GET_STARTED) if "serving_input_example" in text and "predict" in text]
    (activate,) = [text for text in blocks("sh", GET_STARTED) if "activate" in text]
    answer = sh(activate + command.replace("50051", str(port)), PATH=os.defpath)
    assert answer == '{"predictions": ["setosa", "setosa"]}\n'


@pytest.mark.deep
@pytest.mark.timeout(300)
def test_a_model_of_ones_own(tmp_path, monkeypatch):
    """The model of docs/get-started.md is saved, served and described as the page says."""
    (save,) = [text for text in blocks("python", GET_STARTED) if "save_model" in text]
    serve = re.search(r"^mlflow-grpc (serve -m flowers) -p 50053$", GET_STARTED, re.MULTILINE)
    describe = re.search(r"^mlflow-grpc-predict .*--describe flowers$", GET_STARTED, re.MULTILINE)
    assert serve
    assert describe
    monkeypatch.chdir(tmp_path)
    exec(compile(save, "get-started.md", "exec"), {})  # noqa: S102
    with Forked([*serve[1].split(), "-p", "0"], cwd=tmp_path) as process:
        printed = sh(describe[0].replace("localhost:50053", ready_address(process)))
    assert "sepal length (cm)" in printed
    assert "flowers_predict" in printed


def test_the_http_example_runs(served):
    """curl gets the answer of `make predict`, over HTTP."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (command,) = [text for text in blocks("sh", GET_STARTED) if text.startswith("curl")]
    assert sh(command.replace("8080", str(served[2]))) == '{"predictions": ["setosa", "setosa"]}'


def test_the_commands_for_tls(tmp_path):
    """The certificates of the page let its two servers start and its two calls succeed, and no call without them."""
    make, serve, call, *_ = blocks("sh", DEPLOYMENT.partition("## TLS\n")[2])
    (tmp_path / "models").symlink_to(ROOT / "models")
    sh(make, cwd=tmp_path)
    for command, health in zip(serve.splitlines(), call.splitlines(), strict=True):
        name, *arguments = command.split()
        assert name == "mlflow-grpc"
        with Forked([*arguments, "-p", "0"], cwd=tmp_path) as process:
            port = ready_address(process).rpartition(":")[2]
            here = health.replace(f"localhost:{arguments[arguments.index('-p') + 1]}", f"localhost:{port}")
            assert here != health
            assert sh(here, cwd=tmp_path) == "SERVING\n"
            without = re.sub(r" --tls-cert \S+ --tls-key \S+$| --tls-ca \S+$", "", here)
            assert without != here
            with pytest.raises(AssertionError, match="UNAVAILABLE"):
                sh(without, cwd=tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_flags_in_the_text_exist(page):
    """Every flag on a page belongs to a command of this project, or to one that the page runs beside it."""
    from mlflow_grpc_client._cli.arguments import parser

    from mlflow_grpc.cli import main

    options = [
        option for command in ("serve", "proto", "dockerfile", "openapi") for option in main.commands[command].params
    ]
    flags = {spelling for option in options for spelling in (*option.opts, *option.secondary_opts)}
    flags |= {spelling for action in parser()._actions for spelling in action.option_strings}
    flags |= {"--no-conda", "--enable-mlserver", "--output"}  # Of mlflow models serve and of rest-model-service.
    flags |= {"--build-arg", "--stop-timeout", "--label", "--health-cmd", "--pid"}  # Of docker and py-spy.
    flags |= {"--rm", "--entrypoint", "--format", "--dry-run", "--no-deps", "--require-hashes"}  # Of docker and pip.
    flags |= {"--cacert", "--cert", "--connect-to", "--key", "--user"}  # Of curl and docker.
    flags |= {"--home-dir", "--now", "--shell", "--system"}  # Of useradd and systemctl.
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", (ROOT / page).read_text())) <= flags
