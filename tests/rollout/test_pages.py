"""The blocks of docs/recording.md and docs/rollouts.md run with a real registry, and print what the pages show."""

import ast
import os
import re
import shlex
import signal
import subprocess
import sys

import mlflow
import pytest

from tests.rollout.conftest import ROW
from tests.rollout.test_replay import replay
from tests.support.commands import predict_command
from tests.support.servers import ROOT, Process, ready_address

pytestmark = [pytest.mark.slow, pytest.mark.deep, pytest.mark.timeout(600)]

PAGE = (ROOT / "docs" / "rollouts.md").read_text()


def blocks(page: str, language: str) -> list[str]:
    """Returns the code blocks of a page in a language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
    return [code for name, code in fenced if name == language]


def test_recorded_calls(registry, track, tmp_path):
    """Calls are recorded, read, made again with the next version, compared and evaluated as the page shows."""
    _, command = [line for code in blocks("recording.md", "sh") for line in code.splitlines()]
    server = track("--record", str(tmp_path / "recorded"), "--record-share", "100%")
    for _ in range(3):
        server.answer(ROW)
    server.process.signal(signal.SIGTERM)
    assert server.process.wait() == 0
    arguments = command.removeprefix("mlflow-grpc replay ").split()
    places = [str(tmp_path / word) if word in ("recorded", "replayed.parquet") else word for word in arguments]
    code, run = replay(registry, *places)
    assert code == 1, run.output
    (shown,) = blocks("recording.md", "")
    assert without_ids("\n".join(run.stdout)) == without_ids(shown)
    script = "\n".join([*blocks("recording.md", "python"), 'assert len(calls) == 3 and not replayed["is_same"].any()'])
    environment = {**os.environ, "MLFLOW_TRACKING_URI": registry.uri, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def without_ids(text: str) -> str:
    """Returns a text with one space for each gap, and without the random ids of calls."""
    return re.sub(r"\s+", " ", re.sub(r"\b[0-9a-f]{16}\b", "ID", text)).strip()


def test_a_moved_alias(registry, track, monkeypatch):
    """The block that moves the alias makes the server write the lines of the page."""
    server = track("--keep-previous", "0")
    code = next(code for code in blocks("rollouts.md", "python") if "set_registered_model_alias" in code)
    previous = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    mlflow.set_tracking_uri(registry.uri)
    try:
        exec(compile(code, "rollouts.md", "exec"), {})  # noqa: S102
    finally:
        mlflow.set_tracking_uri(previous)
    for line in blocks("rollouts.md", "")[0].splitlines():
        message = re.escape(line.removeprefix("INFO").strip())
        server.process.wait_for(re.sub(r"\d+\\\.\d+", r"[\\d.]+", message))
    server.process.wait_for("churn/1 is unloaded")  # At once, because nothing is kept here.
    assert server.answer()[1] == "2"


def test_a_registry_to_try_it_with(tmp_path):
    """The block makes a registry, whose model the server serves and follows when the block before moves the alias."""
    moving, making = (code for code in blocks("rollouts.md", "python") if "set_registered_model_alias" in code)
    (serving,) = (code for code in blocks("rollouts.md", "sh") if "sqlite" in code)
    export, serve = serving.splitlines()
    variable, _, uri = export.removeprefix("export ").partition("=")
    environment = {**os.environ, variable: uri, "PYTHONPATH": os.pathsep.join(sys.path)}

    def run(code: str) -> None:
        command = [sys.executable, "-W", "ignore", "-c", code]
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=300, check=True)

    run(making)
    program, *arguments = serve.replace("--http-port 8080", "--http-port 0 --port 0").split()
    assert program == "mlflow-grpc"
    command, *answers = re.findall(r"`(mlflow-grpc-predict .*?|{\"predictions.*?)`", PAGE.replace("\n", " "))[:3]
    payload = shlex.split(command)[1]
    with Process([sys.executable, "-m", "mlflow_grpc", *arguments], environment, cwd=tmp_path) as server:
        for moved, answer in ((None, answers[0]), (moving, answers[1])):
            if moved is not None:
                run(moved)
                server.wait_for("churn/2 is served from now on")
            code, printed, error = predict_command("--address", ready_address(server), payload)
            assert (code, printed.strip()) == (0, answer), error


def test_the_webhook():
    """The block that creates a webhook runs by itself: it imports what it uses."""
    (code,) = (code for code in blocks("rollouts.md", "python") if "create_webhook" in code)
    names = {alias.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import) for alias in node.names}
    assert "mlflow" in names


def test_the_champion_and_the_list_of_models(registry, track):
    """curl shows who answers each user of a challenger, and the list of models."""
    commands = blocks("rollouts.md", "sh")
    (users,) = [code for code in commands if "for user in" in code]
    (listing,) = [code for code in commands if "/models" in code and code.startswith("curl")]
    server = track()
    for code in (users, listing):
        command = code.replace("http://127.0.0.1:8080", server.http_url)
        done = subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
        assert "churn" in done.stdout or done.stdout.count("mlflow-model-version: 1") == 6
