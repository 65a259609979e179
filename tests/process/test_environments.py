"""`--env-manager virtualenv|uv`: the server in an environment built from the model's requirements."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import pytest
import yaml

from tests.process.conftest import payload
from tests.support.processes import wait_until_gone
from tests.support.servers import Caller, Forked, Process, ready_address, start_server

NOT_HERE = "toolz==1.0.0"
"""A package that a model may require and that is not installed beside the server."""

BUILD_LIMIT_S = 900.0


SURROUNDINGS = """
import os, sys
import mlflow, toolz

class Surroundings(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        first_on_path = os.environ["PATH"].split(":")[0]
        return [toolz.__version__, sys.prefix, os.environ["VIRTUAL_ENV"], first_on_path, str(os.getpid())]

mlflow.models.set_model(Surroundings())
"""
"""A model that returns facts about its environment."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose requirements are not met here."""
    folder = tmp_path_factory.mktemp("surroundings")
    (folder / "surroundings.py").write_text(SURROUNDINGS)
    requirements = [f"mlflow=={mlflow.__version__}", NOT_HERE]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "toolz", ModuleType("toolz"))  # MLflow runs the file once.
        mlflow.pyfunc.save_model(
            folder / "model", python_model=str(folder / "surroundings.py"), pip_requirements=requirements
        )
    return folder / "model"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of environments, shared by all tests."""
    return tmp_path_factory.mktemp("environments")


def surroundings(process: Process) -> list[str]:
    with Caller(ready_address(process)) as call:
        answer: list[str] = json.loads(call(payload("x")))["predictions"]
        return answer


@pytest.mark.deep
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("manager", ["uv", "virtualenv"])
def test_a_model_is_served_in_its_own_environment(model, root, manager):
    """The model's requirements are met, the process stays the same, SIGTERM ends it, and the second start builds
    nothing."""
    flags = ("-m", str(model), "--env-manager", manager, "--model-name", "a")
    with start_server(*flags, env={"MLFLOW_ENV_ROOT": str(root)}) as process:
        process.wait_for(r"ready: ", timeout_s=BUILD_LIMIT_S)
        version, prefix, virtual_env, first_on_path, pid = surroundings(process)
        assert f"toolz=={version}" == NOT_HERE
        assert Path(prefix).parent == root
        assert (virtual_env, first_on_path) == (prefix, f"{prefix}/bin")
        assert int(pid) == process.popen.pid
        assert "toolz" in process.output  # Output of the build.
        assert "ready: model a (" in process.stdout[0]
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    with start_server(*flags, "-w", "2", env={"MLFLOW_ENV_ROOT": str(root)}) as process:
        process.wait_for(r"ready: ", timeout_s=BUILD_LIMIT_S)
        assert surroundings(process)[1] == prefix
        assert f"found the model's environment in {prefix}" in process.output
        assert "building the model's environment" not in process.output
        process.signal(signal.SIGTERM)
        assert process.wait() == 0


# A build that waits until the test releases it, which never happens.

BACKEND = """\
import os

def build_wheel(directory, config_settings=None, metadata_directory=None):
    with open(os.environ["STARTED"], "w") as file:
        file.write(str(os.getpid()))
    with open(os.environ["NEVER"]) as file:
        file.read()
"""


@pytest.fixture
def slow(model: Path, tmp_path: Path) -> Path:
    """A model that requires its own package, whose build never ends."""
    directory = tmp_path / "slow"
    (directory / "own").mkdir(parents=True)
    build = {"requires": [], "build-backend": "backend", "backend-path": ["."]}
    (directory / "own" / "pyproject.toml").write_text(
        "[build-system]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in build.items())
    )
    (directory / "own" / "backend.py").write_text(BACKEND)
    (directory / "MLmodel").write_text((model / "MLmodel").read_text())
    environment = yaml.safe_load((model / "python_env.yaml").read_text())
    (directory / "python_env.yaml").write_text(
        yaml.safe_dump({"python": environment["python"], "dependencies": ["./own"]})
    )
    for name in ("started", "never"):
        os.mkfifo(tmp_path / name)
    return directory


@pytest.fixture
def start_slow(slow: Path, tmp_path: Path) -> Iterator[Any]:
    """Starts a server whose build never ends."""
    running = []

    def start(manager: str) -> Process:
        env = {
            "MLFLOW_ENV_ROOT": str(tmp_path / "environments"),
            "STARTED": str(tmp_path / "started"),
            "NEVER": str(tmp_path / "never"),
            "TMPDIR": str(tmp_path),  # A server that is killed leaves its directory.
        }
        running.append(start_server("-m", str(slow), "--env-manager", manager, env=env))
        return running[-1]

    yield start
    for process in running:
        process.stop()


@pytest.mark.deep
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("manager", "number"), [("virtualenv", signal.SIGTERM), ("uv", signal.SIGINT)], ids=["virtualenv", "uv"]
)
def test_a_signal_ends_a_build(start_slow, tmp_path, manager, number):
    """A signal during the build ends the server with exit code 0, with all processes that it started, and leaves
    nothing."""
    process = start_slow(manager)
    builder = int((tmp_path / "started").read_text())
    process.signal(number)
    assert process.wait() == 0, process.output
    assert "Traceback" not in process.output
    wait_until_gone(builder)
    assert [path.suffix for path in (tmp_path / "environments").iterdir()] == [".lock"]


@pytest.mark.deep
@pytest.mark.timeout(400)
def test_two_servers_do_not_build_the_same_environment(start_slow, tmp_path):
    """The second of two servers waits for the first, and builds once that has ended."""
    first = start_slow("uv")
    builder = int((tmp_path / "started").read_text())
    second = start_slow("uv")
    second.wait_for("waiting for another server, which builds the same environment")
    assert "running" not in second.output
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    wait_until_gone(builder)
    assert int((tmp_path / "started").read_text()) != builder
    second.signal(signal.SIGTERM)
    assert second.wait() == 0


@pytest.mark.deep
@pytest.mark.timeout(400)
def test_an_orphaned_build_still_holds_the_lock(start_slow, tmp_path):
    """If a server is killed while its pip runs, no other server builds in the same directory until pip has ended."""
    first = start_slow("uv")
    builder = int((tmp_path / "started").read_text())
    group = os.getpgid(builder)
    first.signal(signal.SIGKILL)
    first.popen.wait()
    second = start_slow("uv")
    second.wait_for("waiting for another server, which builds the same environment")
    os.killpg(group, signal.SIGKILL)
    assert int((tmp_path / "started").read_text()) != builder
    second.signal(signal.SIGTERM)
    assert second.wait() == 0


@pytest.mark.parametrize(
    ("file", "text", "error"),
    [
        ("python_env.yaml", "python: 3.8.18\n", "was logged with Python 3.8.18, and this server needs"),
        ("requirements.txt", "mlflow==1.30.0\n", "requires mlflow==1.30.0, and this server runs with mlflow"),
    ],
)
def test_unsupported_models_are_refused_before_a_build(model, tmp_path, file, text, error):
    """A model of an older Python or MLflow is refused with one line and exit code 2, and nothing is created."""
    old = shutil.copytree(model, tmp_path / "old")
    (old / file).write_text(text)
    env = {"MLFLOW_ENV_ROOT": str(tmp_path / "environments")}
    with start_server("-m", str(old), "--env-manager", "uv", env=env) as process:
        assert process.wait(60) == 2
    (line,) = process.errors
    assert error in line
    assert not (tmp_path / "environments").exists()


@pytest.mark.deep
@pytest.mark.timeout(1000)
def test_the_version_behind_an_alias_is_that_of_the_environment(own_registry, root):
    """The server serves the version that the environment was built for, even if its alias is moved meanwhile."""
    env = {"MLFLOW_ENV_ROOT": str(root), "MLFLOW_TRACKING_URI": own_registry}
    with start_server("-m", "models:/churn@champion", "--env-manager", "uv", env=env) as process:
        process.wait_for("models:/churn@champion is version 1")
        client = mlflow.MlflowClient(tracking_uri=own_registry, registry_uri=own_registry)
        client.set_registered_model_alias("churn", "champion", "2")
        process.wait_for(r"ready: ", timeout_s=BUILD_LIMIT_S)
        with Caller(ready_address(process)) as call:
            assert call(payload("x"), mlflow_model="churn/1") == '{"predictions": ["x"]}'
        assert "is version 2" not in process.output


def test_the_build_context_has_the_version_behind_an_alias(registry, tmp_path):
    """`mlflow-grpc dockerfile` fetches one version, and names it in the Dockerfile."""
    directory = tmp_path / "context"
    command = ["dockerfile", "-m", "models:/churn@champion", "-o", str(directory)]
    with Forked(command, env={"MLFLOW_TRACKING_URI": registry}) as process:
        assert process.wait() == 0
    assert "serves the MLflow model models:/churn/1," in (directory / "Dockerfile").read_text()
