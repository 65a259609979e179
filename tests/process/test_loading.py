"""Loading: each model is served once it is ready, and one that cannot be fetched delays no other."""

import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import mlflow
import pytest
import yaml
from grpc_health.v1 import health_pb2

from mlflow_grpc import protos
from tests.process.conftest import QUICK, Held, payload
from tests.support.servers import ROOT, Caller, Forked, Process, free_port, ready_address, start_server

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


@contextmanager
def silent_registry() -> Iterator[str]:
    """The URL of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def wait_until_serving(call: Caller, name: str) -> None:
    """Waits until the health of a model is SERVING."""
    watch: Any = call.channel.unary_stream("/grpc.health.v1.Health/Watch")
    request = health_pb2.HealthCheckRequest(service=name).SerializeToString()
    assert SERVING in watch(request, wait_for_ready=True, timeout=90)


@pytest.fixture
def launch(tmp_path):
    """Returns a function that starts a server with the models of a configuration."""
    with ExitStack() as stack:

        def start(models: list[dict[str, Any]], *flags: str, env: dict[str, str] | None = None) -> Any:
            file = tmp_path / "models.yaml"
            file.write_text(yaml.safe_dump({"models": models}))
            return stack.enter_context(start_server("--config", str(file), *flags, env=env))

        yield start


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unresponsive_registry_delays_no_other_model(launch, model, workers):
    """Other models are served meanwhile, while the server as a whole is NOT_SERVING."""
    port = free_port()
    with silent_registry() as url:
        process = launch(
            [{"uri": "models:/churn/1", "on_error": "skip"}, {"uri": str(model), "name": "steps"}],
            *("-p", str(port), "-w", str(workers)),
            env={"MLFLOW_TRACKING_URI": url},
        )
        process.wait_for("loading churn from models:/churn/1")
        process.wait_for(rf"loading steps from {model}")
        with Caller(f"127.0.0.1:{port}") as call:
            check: Any = call.channel.unary_unary("/grpc.health.v1.Health/Check")
            wait_until_serving(call, "steps")
            assert call(payload("x"), mlflow_model="steps") == '{"predictions": ["x"]}'
            assert check(b"", timeout=10) == NOT_SERVING
            assert call.outcome(payload("x"), mlflow_model="churn")[0] == "UNAVAILABLE"


def test_a_model_that_is_not_fetched_in_time_is_left_out(launch):
    """After --load-timeout the server is ready without the model."""
    with silent_registry() as url:
        process = launch(
            [{"uri": "models:/churn/1", "on_error": "skip"}, {"class_path": QUICK.removeprefix("mlmodel:")}],
            *("--load-timeout", "1"),
            env={"MLFLOW_TRACKING_URI": url},
        )
        with Caller(ready_address(process)) as call:
            assert call.outcome(payload("x"), mlflow_model="churn")[0] == "FAILED_PRECONDITION"
        waiting = f"no answer yet from the registry {url}"
        process.wait_for(rf"churn.* is left out: it was not fetched within 1 s .--load-timeout.: {waiting}")


def test_a_load_timeout_stops_the_start(launch, model, tmp_path):
    """A model that exceeds --load-timeout is interrupted, and the server ends with exit code 2."""
    slow = shutil.copytree(model, tmp_path / "slow")
    os.mkfifo(tmp_path / "never")
    (slow / "stepper.py").write_text(f"open({str(tmp_path / 'never')!r}).read()\n")
    process = launch([{"uri": str(slow)}], "--load-timeout", "1")
    assert process.wait() == 2
    assert any("Error: it was not loaded within 1 s (--load-timeout)" in error for error in process.errors)
    assert "Traceback" not in process.output


def test_a_fetch_timeout_names_the_registry():
    """The error names the registry without its password, so that the owner sees that the model is not at fault."""
    with (
        silent_registry() as url,
        start_server(
            *("-m", "models:/churn/1", "--load-timeout", "1"),
            env={"MLFLOW_TRACKING_URI": url.replace("://", "://user:secret@")},
        ) as process,
    ):
        assert process.wait() == 2
        waiting = f"no answer yet from the registry {url.replace('://', '://user:***@')}"
        assert any(
            f"Error: it was not fetched within 1 s (--load-timeout): {waiting}" in error for error in process.errors
        )
        assert "secret" not in process.output


def test_aliases_and_latest_are_resolved_once(launch, registry):
    """The resolved version is in the log, in calls and in the list of models."""
    env = {"MLFLOW_TRACKING_URI": registry}
    process = launch([{"uri": "models:/churn@champion"}, {"uri": "models:/churn/latest"}], env=env)
    address = ready_address(process)
    process.wait_for("models:/churn@champion is version 1")
    process.wait_for("models:/churn/latest is version 2")
    with Caller(address) as call:
        for name in ("churn/1", "churn/2", "churn"):
            if name == "churn":
                assert call.outcome(payload("x"))[0] == "OK"
            assert call(payload("x"), mlflow_model=name) == '{"predictions": ["x"]}'
        assert listed_versions(call) == {"1", "2"}


def listed_versions(call: Caller) -> set[str]:
    """Returns the versions in the list of models."""
    response = protos.message_named("mlflow_grpc.v1.ListModelsResponse")
    ask: Any = call.channel.unary_unary("/mlflow_grpc.v1.Models/ListModels", response_deserializer=response.FromString)
    return {model.version for model in ask(b"", timeout=30).models}


def move_alias(registry: str, version: str) -> None:
    client = mlflow.MlflowClient(tracking_uri=registry, registry_uri=registry)
    client.set_registered_model_alias("churn", "champion", version)
    assert str(client.get_model_version_by_alias("churn", "champion").version) == version


def test_a_replaced_worker_serves_the_version_of_the_others(start, own_registry):
    """After an alias is moved, a worker that replaces one that died still serves the version of the start."""
    process = start("-m", "models:/churn@champion", "-w", "2", env={"MLFLOW_TRACKING_URI": own_registry})
    address = ready_address(process)
    move_alias(own_registry, "2")
    victims = [process.wait_for(r"worker \d+ started, pid (\d+)", times=number)[1] for number in (1, 2)]
    for victim in victims:  # Both, so that each worker of the server is a replacement.
        os.kill(int(victim), signal.SIGKILL)
    process.wait_for("churn@champion is version", times=4)
    assert "is version 2" not in process.output
    with Caller(address) as call:
        wait_until_serving(call, "churn")
        assert call(payload("x"), mlflow_model="churn/1") == '{"predictions": ["x"]}'
        assert listed_versions(call) == {"1"}


@pytest.mark.parametrize(
    ("uri", "excerpts"),
    [
        ("models:/churn", ["models:/churn has no version: write models:/churn/1 or models:/churn@alias"]),
        ("models:/churn/7", ["churn has the versions 2, 1 and the aliases champion (version 1)"]),
        ("models:/churn@best", ["churn has the versions 2, 1 and the aliases champion (version 1)"]),
        ("models:/chrun/1", ["It has no model chrun, but churn"]),
    ],
)
def test_errors_list_the_content_of_the_registry(start, registry, uri, excerpts):
    """The error has the registry in use, and what it contains."""
    process = start("-m", uri, env={"MLFLOW_TRACKING_URI": registry})
    assert process.wait() == 2
    (line,) = process.errors
    for text in [*excerpts, f"The registry in use is {registry}"]:
        assert text in line


def test_without_a_tracking_uri_no_database_is_created(model, tmp_path):
    """The error names the variable to set, and the working directory stays empty."""
    for uri in ("models:/churn/1", "runs:/0123456789abcdef0123456789abcdef/model"):
        with start_server("-m", uri, cwd=tmp_path) as process:
            assert process.wait() == 2
            assert f"cannot fetch the model {uri}: MLFLOW_TRACKING_URI is not set" in process.output
    assert list(tmp_path.iterdir()) == []


def test_a_password_in_a_uri_is_not_shown(start, tmp_path):
    """Passwords in the URIs of the model and of the registry are masked."""
    for uri, env in (
        ("http://me:secret@127.0.0.1:1/model", {}),
        ("models:/churn/1", {"MLFLOW_TRACKING_URI": "mysql://me:secret@127.0.0.1:1/db"}),
    ):
        process = start("-m", uri, env=env)
        assert process.wait() == 2
        assert "secret" not in process.output


def test_a_module_in_the_working_directory(model, tmp_path):
    """Like `mlflow models serve`, the server has the working directory on sys.path, however it is started."""
    model_copy = shutil.copytree(model, tmp_path / "own")
    code = (model_copy / "stepper.py").read_text()
    (model_copy / "stepper.py").write_text(f"import helper_of_mine\n{code}")
    (tmp_path / "helper_of_mine.py").write_text("")
    with Forked(["serve", "-p", "0", "-m", "own"], cwd=tmp_path) as process, Caller(ready_address(process)) as call:
        assert call(payload("x")) == '{"predictions": ["x"]}'


def test_a_symbolic_link_gives_its_own_name(start, model, tmp_path, connect):
    """current -> releases/42 is called current."""
    (tmp_path / "current").symlink_to(model)
    process = start("-m", str(tmp_path / "current"))
    assert connect(process)(payload("x"), mlflow_model="current") == '{"predictions": ["x"]}'


@pytest.mark.parametrize("spelling", ["file://{}/a%20b/model", "file://{}/a b/model", "{}/a b/model", "~/a b/model"])
def test_spellings_of_a_path(start, connect, model, tmp_path, spelling):
    """Paths may have spaces, percent-encoded or not, and ~ for the home directory."""
    shutil.copytree(model, tmp_path / "a b" / "model")
    assert connect(start("-m", spelling.format(tmp_path), env={"HOME": str(tmp_path)}))(payload("x"))


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.deep)])
def test_warnings_as_errors_do_not_end_the_start(start, connect, model, workers):
    """PYTHONWARNINGS=error does not end the start, with one process and with two."""
    process = start("-m", str(model), "-w", workers, env={"PYTHONWARNINGS": "error"}, fresh=True)
    assert connect(process)(payload("x")) == '{"predictions": ["x"]}'
    process.signal(signal.SIGTERM)
    assert process.wait() == 0


def test_lines_of_libraries_and_models(start, model, tmp_path, connect):
    """INFO lines of libraries are not logged, whatever level they set themselves, except with --log-level-libraries.
    Warnings are logged."""
    chatty = shutil.copytree(model, tmp_path / "chatty")
    code = (chatty / "stepper.py").read_text()
    (chatty / "stepper.py").write_text(
        "import logging\n"
        "logging.getLogger('theirs').setLevel(logging.DEBUG)\n"
        "logging.getLogger().setLevel(logging.DEBUG)\n"
        "logging.getLogger('theirs').info('with a key')\n"
        "logging.getLogger('theirs').warning('be careful')\n" + code
    )
    quiet = start("-m", str(chatty))
    ready_address(quiet)
    quiet.wait_for("be careful")
    assert "with a key" not in quiet.output
    loud = start("-m", str(chatty), "--log-level-libraries", "info", "--log-level", "error")
    ready_address(loud)
    loud.wait_for("with a key")
    assert "loading chatty" not in loud.output


def test_variables_of_other_programs_are_ignored(start_bare_server):
    """A HOST for conda's compilers and a PORT of a Kubernetes service link are ignored, with a line each."""
    process = start_bare_server({"HOST": "x86_64-conda-linux-gnu", "PORT": "tcp://10.0.0.1:80", "MLFLOW_PORT": "0"})
    assert ready_address(process).startswith("127.0.0.1:")
    process.wait_for("HOST is ignored: 'x86_64-conda-linux-gnu'")
    process.wait_for("PORT is ignored: 'tcp://10.0.0.1:80'")


@pytest.fixture
def start_bare_server():
    """Returns a function that starts a server with settings from the environment alone."""
    with ExitStack() as stack:
        command = [sys.executable, str(ROOT / "server.py")]
        yield lambda env: stack.enter_context(Process(command, {"MODEL_PATH": QUICK, **env}))


def test_versions_of_a_model_become_ready_together(launch, model, tmp_path):
    """A call without a version is for the highest, so it waits until all versions are loaded."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    slow = shutil.copytree(model, tmp_path / "slow")
    code = (slow / "stepper.py").read_text()
    (slow / "stepper.py").write_text(f"open({str(gate)!r}).read()\n{code}")
    port = free_port()
    process = launch(
        [
            {"uri": str(model), "name": "steps", "version": "1"},
            {"uri": str(model), "name": "other"},
            {"uri": str(slow), "name": "steps", "version": "2"},
        ],
        *("-p", str(port)),
    )
    with Caller(f"127.0.0.1:{port}") as call:
        wait_until_serving(call, "other")
        assert call.outcome(payload("x"), mlflow_model="steps")[0] == "UNAVAILABLE"
        gate.write_text("go")
        ready_address(process)
        for name in ("steps", "steps/1", "steps/2"):
            assert call(payload("x"), mlflow_model=name) == '{"predictions": ["x"]}'


@pytest.mark.deep
def test_calls_finish_when_another_model_stops_the_start(launch, model, tmp_path):
    """The server drains before it ends with exit code 2."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    broken = shutil.copytree(model, tmp_path / "broken")
    (broken / "stepper.py").write_text(f"open({str(gate)!r}).read()\nraise RuntimeError('boom')\n")
    port = free_port()
    process = launch([{"uri": str(model), "name": "steps"}, {"uri": str(broken)}], "-p", str(port))
    with Caller(f"127.0.0.1:{port}") as call:
        wait_until_serving(call, "steps")
        held = Held(call, tmp_path, mlflow_model="steps")
        gate.write_text("go")
        process.wait_for("draining: 1 calls in flight")
        held.let_go()
        assert held.result()[0] == "OK"
    assert process.wait() == 2
    assert "boom" in process.output
