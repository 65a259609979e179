"""The Dockerfile, built and run: by docker, or without docker by the scripts in CONTAINER_TOOLS."""

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import mlflow
import pytest
import requests
from mlflow_grpc_client import Client
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sklearn.datasets import load_iris

from tests.support.servers import ROOT, Process, error_in, free_port

pytestmark = [pytest.mark.image, pytest.mark.timeout(1800)]

GET_STARTED = (ROOT / "docs" / "get-started.md").read_text()
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text()
INSIDE = "/opt/ml/model"
NOT_LOCKED = "toolz==1.0.0"
"""A package that a model may require and the server's lock does not have."""

STOP_LIMIT_S = 30.0


class Engine(Protocol):
    """Builds images, runs them in the foreground, and runs commands beside the server in a container."""

    def build(self, tag: str, context: Path, **arguments: str) -> list[str]: ...

    def run(self, name: str, tag: str, env: dict[str, str], volumes: dict[Path, str]) -> list[str]: ...

    def inside(self, container: "Container", command: str, env: dict[str, str]) -> list[str]: ...

    def identity(self, container: "Container") -> str: ...

    def remove(self, tag: str) -> list[str]: ...


class Docker:
    """The docker on the PATH. Containers can write only to /tmp."""

    def build(self, tag: str, context: Path, **arguments: str) -> list[str]:
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        return ["docker", "build", "--tag", tag, *options, str(context)]

    def run(self, name: str, tag: str, env: dict[str, str], volumes: dict[Path, str]) -> list[str]:
        flags = ["--rm", "--network=host", "--read-only", "--tmpfs=/tmp", f"--name={name}"]
        flags += [f"--env={key}={value}" for key, value in env.items()]
        flags += [f"--volume={outside}:{inside}:ro" for outside, inside in volumes.items()]
        return ["docker", "run", *flags, tag]

    def inside(self, container: "Container", command: str, env: dict[str, str]) -> list[str]:
        flags = [f"--env={key}={value}" for key, value in env.items()]
        return ["docker", "exec", *flags, container.name, "/bin/sh", "-c", command]

    def identity(self, container: "Container") -> str:
        return output_of(self.inside(container, "cat /proc/1/status", {}))

    def remove(self, tag: str) -> list[str]:
        return ["docker", "rmi", tag]


class Scripts:
    """The scripts `build` and `run` of a machine without a container engine, but with buildah."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def build(self, tag: str, context: Path, **arguments: str) -> list[str]:
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        return [str(self._directory / "build"), tag, str(context), *options]

    def run(self, name: str, tag: str, env: dict[str, str], volumes: dict[Path, str]) -> list[str]:
        flags = [option for key, value in env.items() for option in ("-e", f"{key}={value}")]
        flags += [option for outside, inside in volumes.items() for option in ("-v", f"{outside}:{inside}")]
        return [str(self._directory / "run"), tag, *flags]

    def inside(self, container: "Container", command: str, env: dict[str, str]) -> list[str]:
        server = self._server(container)
        has = (server / "environ").read_text().rstrip("\0").split("\0")
        user, group = (ids(self.identity(container), id_type) for id_type in ("Uid", "Gid"))
        variables = [f"{key}={value}" for key, value in env.items()]
        identity = [f"--userspec={user}:{group}", "--groups="]
        return [
            "chroot",
            *identity,
            str(server / "root"),
            "/usr/bin/env",
            "-i",
            *has,
            *variables,
            "/bin/sh",
            "-c",
            command,
        ]

    def identity(self, container: "Container") -> str:
        return (self._server(container) / "status").read_text()

    def remove(self, tag: str) -> list[str]:
        return ["env", "STORAGE_DRIVER=vfs", "buildah", "rmi", tag]

    def _server(self, container: "Container") -> Path:
        script = container.popen.pid
        (server,) = Path(f"/proc/{script}/task/{script}/children").read_text().split()
        return Path("/proc") / server


class Container(Process):
    """A container that runs the image's own command on free ports of this machine."""

    def __init__(self, engine: Engine, tag: str, *, model: Path | None = None, **env: str) -> None:
        self._engine = engine
        self.name = f"mlflow-grpc-test-{uuid.uuid4().hex[:8]}"
        self.address = f"127.0.0.1:{(port := free_port())}"
        self.url = f"http://127.0.0.1:{(http_port := free_port())}"
        ports = {"PORT": str(port), "MLFLOW_GRPC_HTTP_PORT": str(http_port)}
        super().__init__(engine.run(self.name, tag, {**ports, **env}, {model: INSIDE} if model else {}))

    def wait_until_ready(self) -> None:
        self.wait_for(r"ready: model \S+ \(.*\) on ")

    def inside(self, command: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Runs a shell command in the container, as the server's user and in its environment."""
        return subprocess.run(
            self._engine.inside(self, command, env), capture_output=True, text=True, check=False, timeout=60
        )

    def identity(self) -> str:
        """Returns the server's /proc/PID/status."""
        return self._engine.identity(self)

    def stop(self) -> None:
        # A signal that the runner cannot pass on would leave the container behind.
        for _ in range(2):  # The second one ends a drain.
            if self.popen.poll() is None:
                self.signal(signal.SIGTERM)
                try:
                    self.popen.wait(STOP_LIMIT_S)
                except subprocess.TimeoutExpired:
                    continue
        super().stop()


def output_of(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def ids(status: str, id_type: str) -> int:
    """Returns the effective Uid or Gid in a /proc/PID/status."""
    match = re.search(rf"^{id_type}:\t\d+\t(\d+)", status, re.MULTILINE)
    assert match, status
    return int(match[1])


@pytest.fixture(scope="module")
def engine() -> Engine:
    if shutil.which("docker") and not subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return Docker()
    scripts = ROOT / os.environ.get("CONTAINER_TOOLS", "../shared/container")
    if not all((scripts / name).is_file() for name in ("build", "run")):
        pytest.fail(
            "building images needs docker with a running daemon (`docker info`), or the scripts build and run in "
            f"the directory that CONTAINER_TOOLS names; there are none in {scripts}"
        )
    return Scripts(scripts)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build context: a copy of the checkout with the example model where `make models/iris` puts it."""
    copy = tmp_path_factory.mktemp("context") / "checkout"
    skipped = shutil.ignore_patterns(".?*", "__pycache__", "node_modules", "mlruns", "mlartifacts", "iris")
    shutil.copytree(ROOT, copy, ignore=skipped)
    shutil.copy(ROOT / ".dockerignore", copy)
    output_of([sys.executable, str(copy / "models" / "train_iris.py")])
    return copy


@pytest.fixture(scope="module")
def iris(context: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example model, outside the build context."""
    return shutil.copytree(context / "models" / "iris", tmp_path_factory.mktemp("models") / "iris")


def build(engine: Engine, tag: str, context: Path, **arguments: str) -> Iterator[str]:
    output_of(engine.build(tag, context, **arguments))
    yield tag
    output_of(engine.remove(tag))


@pytest.fixture(scope="module")
def baked(engine: Engine, context: Path, iris: Path) -> Iterator[str]:
    """An image with the example model, which requires a package that the server does not."""
    model = shutil.copytree(iris, context / "models" / "baked")
    add_requirement(model, NOT_LOCKED)
    build_args = shown("docker build", "--build-arg")
    assert build_args.pop("MODEL_DIR") == "models/iris"
    yield from build(
        engine, "mlflow-grpc-test:baked", context, MODEL_DIR="models/baked", EXTRAS="s3,gs,azure", **build_args
    )


@pytest.fixture(scope="module")
def plain(engine: Engine, context: Path) -> Iterator[str]:
    """An image without a model."""
    yield from build(engine, "mlflow-grpc-test:plain", context)


@pytest.fixture(scope="module")
def running(engine: Engine, baked: str) -> Iterator[Container]:
    """A ready container with the example model."""
    with Container(engine, baked) as container:
        container.wait_until_ready()
        yield container


def shown(command: str, flag: str) -> dict[str, str]:
    """Returns the pairs `flag NAME=VALUE` for a command in docs/deployment.md, on lines that set MODEL_NAME."""
    lines = [line for line in DEPLOYMENT.splitlines() if line.startswith(command) and "MODEL_NAME=" in line]
    arguments = [word for line in lines for word in shlex.split(line)]
    pairs = [after.partition("=") for word, after in pairwise(arguments) if word == flag]
    assert pairs
    return {name: value for name, _, value in pairs}


def assert_the_first_calls_work(address: str, model: Path) -> None:
    """Asserts that Python and the command of docs/get-started.md work with a server of `model` at `address`."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", GET_STARTED, re.MULTILINE | re.DOTALL)
    python = [text for language, text in blocks if language == "python" and "localhost:50051" in text]
    assert len(python) >= 2
    for text in python:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(text.replace("localhost:50051", address), "get-started.md", "exec"), {})  # noqa: S102
        assert printed.getvalue().splitlines() == re.findall(r"^ *print\(.*  # (.*)$", text, re.MULTILINE)
    (payload,) = re.findall(
        r"^mlflow-grpc-predict --address localhost:50051 @models/iris/(\S+)$", GET_STARTED, re.MULTILINE
    )
    command = [sys.executable, "-m", "mlflow_grpc_client", "--address", address, f"@{model / payload}"]
    assert output_of(command) == '{"predictions": ["setosa", "setosa"]}\n'


def add_requirement(model: Path, requirement: str) -> None:
    with (model / "requirements.txt").open("a") as file:
        file.write(f"\n{requirement}\n")


def assert_answers_like(address: str, model: Path) -> None:
    """Asserts that the server at `address` has the predictions of the model in this process."""
    loaded = mlflow.pyfunc.load_model(str(model))
    flowers = load_iris(as_frame=True).data.iloc[[0, 60, 120]]
    flowers.columns = loaded.metadata.get_input_schema().input_names()
    with Client(address) as client:
        answer = client.predict(flowers)
    assert answer == loaded.predict(flowers).tolist()
    assert len(set(answer)) == 3


def test_baked_model_answers(running: Container, iris: Path) -> None:
    """A client outside the container gets MLflow's answers from a built-in model."""
    assert_answers_like(running.address, iris)


def test_the_first_calls_reach_a_baked_model(running: Container, iris: Path) -> None:
    """The calls of docs/get-started.md, including typed ones, are answered by an image that is built as its page says."""
    assert_the_first_calls_work(running.address, iris)


def test_the_http_port_is_open(running: Container, iris: Path) -> None:
    """The image serves MLflow's routes too, without a flag."""
    payload = (iris / "serving_input_example.json").read_bytes()
    headers = {"content-type": "application/json"}
    answer = requests.post(f"{running.url}/invocations", data=payload, headers=headers, timeout=60)
    assert (answer.status_code, answer.text) == (200, '{"predictions": ["setosa", "setosa"]}')
    assert requests.get(f"{running.url}/ping", timeout=60).status_code == 200
    assert "MLFLOW_GRPC_HTTP_PORT=8080" in (ROOT / "Dockerfile").read_text()


def test_baked_requirements_are_installed(running: Container) -> None:
    """A built-in model's requirements are in the image, also those that the server does not have."""
    assert NOT_LOCKED in running.inside("pip freeze").stdout.splitlines()


def test_server_is_not_root(running: Container) -> None:
    """The server runs as the numeric user in the Dockerfile, which is not root."""
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert user
    assert (ids(running.identity(), "Uid"), ids(running.identity(), "Gid")) == (int(user[1]), int(user[2]))
    assert int(user[1]) != 0


def test_nothing_is_written_outside_tmp(running: Container, iris: Path) -> None:
    """A server that has answered has written no file outside /tmp, and cannot change the image's own files."""
    assert_answers_like(running.address, iris)
    user = ids(running.identity(), "Uid")
    skipped = r"\( -path /proc -o -path /sys -o -path /dev \) -prune"
    files = running.inside(f"touch /tmp/here; find / {skipped} -o -user {user} -print").stdout.splitlines()
    assert "/tmp/here" in files  # noqa: S108
    assert [path for path in files if not path.startswith("/tmp/")] == []  # noqa: S108
    writable = running.inside("find /opt -writable ! -type l")
    assert (writable.returncode, writable.stdout) == (0, "")


def test_healthcheck(running: Container) -> None:
    """The Dockerfile's HEALTHCHECK succeeds for a ready server only."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    check = re.search(r"^HEALTHCHECK\s.*?\sCMD\s+(.+)$", text, re.MULTILINE)
    assert check
    healthy = running.inside(check[1])
    assert (healthy.returncode, healthy.stdout) == (0, "SERVING\n"), healthy.stderr
    assert running.inside(check[1], PORT=str(free_port())).returncode != 0


def test_extras_are_in_the_image(running: Container) -> None:
    """The packages of the extras can be imported, in the locked versions."""
    modules = "boto3, google.cloud.storage, azure.identity, azure.storage.blob, azure.storage.filedatalake"
    imported = running.inside(f"python -c 'import {modules}'")
    assert imported.returncode == 0, imported.stderr
    listed = running.inside("pip list --format=freeze").stdout.split()
    for name in ("boto3", "google-cloud-storage", "azure-identity"):
        (line,) = [line for line in listed if line.startswith(f"{name}==")]
        assert any(f"\n{line} " in (ROOT / f"requirements-{extra}.txt").read_text() for extra in ("s3", "gs", "azure"))


def test_generated_context_serves(engine: Engine, iris: Path, tmp_path: Path) -> None:
    """The output of `mlflow-grpc dockerfile` builds an image that serves the model with its requirements."""
    model = shutil.copytree(iris, tmp_path / "iris")
    add_requirement(model, NOT_LOCKED)
    command = [sys.executable, "-m", "mlflow_grpc", "dockerfile", "-m", str(model), "-o", str(tmp_path / "context")]
    output_of(command)
    for tag in build(engine, "mlflow-grpc-test:generated", tmp_path / "context"):
        with Container(engine, tag) as container:
            container.wait_until_ready()
            assert_answers_like(container.address, iris)
            assert_the_first_calls_work(container.address, iris)
            assert ids(container.identity(), "Uid") != 0
            assert f"\n{NOT_LOCKED}\n" in container.inside("pip list --format=freeze").stdout
            check = container.inside('mlflow-grpc-predict --health --address "localhost:$PORT"')
            assert (check.returncode, check.stdout) == (0, "SERVING\n"), check.stderr
            container.signal(signal.SIGTERM)
            assert container.wait() == 0, container.output


def test_any_user_serves(engine: Engine, baked: str, iris: Path, tmp_path: Path) -> None:
    """The image also works with an unknown user id, as OpenShift and others run it."""
    (tmp_path / "Dockerfile").write_text(f"FROM {baked}\nUSER 54321:0\n")
    for tag in build(engine, "mlflow-grpc-test:user", tmp_path):
        with Container(engine, tag) as container:
            container.wait_until_ready()
            assert ids(container.identity(), "Uid") == 54321
            assert_answers_like(container.address, iris)


def test_mounted_model_answers(engine: Engine, plain: str, iris: Path) -> None:
    """A client outside the container gets MLflow's answers from a mounted model."""
    with Container(engine, plain, model=iris, **shown("docker run", "-e")) as container:
        container.wait_until_ready()
        assert_answers_like(container.address, iris)
        assert_the_first_calls_work(container.address, iris)


def test_image_holds_the_lock(engine: Engine, plain: str, iris: Path) -> None:
    """The image has the packages of requirements.txt in exactly these versions, ours, and pip; no compiler."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    requirements = [Requirement(line.rstrip("\\")) for line in lines if line and not line.startswith(("#", " "))]
    locked = {
        f"{canonicalize_name(requirement.name)}{requirement.specifier}"
        for requirement in requirements
        if not requirement.marker or requirement.marker.evaluate()
    }
    with Container(engine, plain, model=iris) as container:
        container.wait_until_ready()
        listed = container.inside("pip list --format=freeze").stdout.split()
        tools = container.inside("for tool in pip cc gcc g++ clang; do command -v $tool; done")
    installed = {
        f"{canonicalize_name(name)}=={number}" for name, _, number in (line.partition("==") for line in listed)
    }
    ours = {f"{name}=={version(name)}" for name in ("mlflow-grpc", "mlflow-grpc-client")}
    assert locked | ours <= installed
    assert {line.partition("==")[0] for line in installed - locked - ours} <= {"pip", "setuptools", "wheel"}
    assert tools.stdout == "/opt/venv/bin/pip\n"


def test_the_commands_that_verify_an_image(engine: Engine, plain: str, iris: Path, tmp_path: Path) -> None:
    """The commands of docs/deployment.md accept the lock, and name a package that the image does not have."""
    check, install = re.findall(r"--entrypoint (pip) mlflow-grpc (.*)$", DEPLOYMENT, re.MULTILINE)
    model = shutil.copytree(iris, tmp_path / "model")
    shutil.copy(ROOT / "requirements.txt", model / "locked.txt")
    (model / "others.txt").write_text(f"{NOT_LOCKED} --hash=sha256:{'0' * 64}\n")
    with Container(engine, plain, model=model) as container:
        container.wait_until_ready()
        assert container.inside(" ".join(check)).stdout == "No broken requirements found.\n"
        command = " ".join(install)
        assert command.endswith("-r /requirements.txt")
        accepted = container.inside(command.replace("/requirements.txt", f"{INSIDE}/locked.txt")).stdout
        refused = container.inside(command.replace("/requirements.txt", f"{INSIDE}/others.txt"))
    assert accepted.count("Requirement already satisfied") > 50
    assert "Would install" not in accepted
    assert "toolz" in refused.stdout + refused.stderr
    assert "already satisfied" not in refused.stdout


GATE = f'''
import mlflow
from mlflow.pyfunc import PythonModel


class Gate(PythonModel):
    """Answers with what comes through a pipe beside the model, once it comes."""

    def predict(self, context, model_input, params=None):
        with open("{INSIDE}/gate") as gate:
            return gate.read()


mlflow.models.set_model(Gate())
'''


def test_sigterm_drains(engine: Engine, plain: str, tmp_path: Path) -> None:
    """A call in flight at SIGTERM is answered, and then the container ends with 0."""
    (tmp_path / "gate.py").write_text(GATE)
    mlflow.pyfunc.save_model(tmp_path / "model", python_model=tmp_path / "gate.py", pip_requirements=["mlflow"])
    gate = tmp_path / "model" / "gate"
    os.mkfifo(gate)
    gate.chmod(0o666)
    with (
        Container(engine, plain, model=tmp_path / "model") as container,
        Client(container.address) as client,
        ThreadPoolExecutor() as pool,
    ):
        container.wait_until_ready()
        call = pool.submit(client.predict, {"inputs": [1]})
        with gate.open("w") as answer:  # Returns once the model has opened its end.
            container.signal(signal.SIGTERM)
            container.wait_for("draining: 1 calls in flight")
            answer.write("let through")
        assert call.result(STOP_LIMIT_S) == "let through"
        assert container.wait() == 0, container.output


def test_unmet_requirement_is_named(engine: Engine, plain: str, iris: Path, tmp_path: Path) -> None:
    """A mounted model whose requirements the image does not meet ends the container with 2 and a list of them."""
    model = shutil.copytree(iris, tmp_path / "iris")
    add_requirement(model, "no-such-package==1.0")
    add_requirement(model, "orjson<3")
    with Container(engine, plain, model=model) as container:
        assert container.wait(60) == 2, container.output
        (error,) = filter(None, map(error_in, container.stderr))
        assert "no-such-package==1.0 (not installed)" in error
        assert re.search(r"orjson<3 \(\S+ is installed\)", error)


def test_missing_model_is_reported(engine: Engine, plain: str) -> None:
    """Without a model the container ends with 2 and one line with the model's expected location."""
    with Container(engine, plain) as container:
        assert container.wait(60) == 2, container.output
        (error,) = filter(None, map(error_in, container.stderr))
        assert f"{INSIDE} is not an MLflow model: it has no MLmodel file" in error


def test_conflicting_mlflow_fails_the_build(engine: Engine, context: Path, iris: Path) -> None:
    """A model that pins an unsupported MLflow fails the build with pip's explanation."""
    model = shutil.copytree(iris, context / "models" / "conflicting")
    (model / "requirements.txt").write_text("mlflow==2.9.2\n")
    tag = "mlflow-grpc-test:conflicting"
    done = subprocess.run(
        engine.build(tag, context, MODEL_DIR="models/conflicting"), capture_output=True, text=True, check=False
    )
    output = done.stdout + done.stderr
    assert done.returncode != 0, output
    assert re.search(r"Cannot install .*mlflow==2\.9\.2 .*conflicting dependencies", output), output
    assert re.search(r"mlflow-grpc \S+ depends on mlflow<4 and >=2\.22", output), output


def test_unknown_extra_fails_the_build(engine: Engine, context: Path) -> None:
    """An unknown extra fails the build with an explanation."""
    done = subprocess.run(
        engine.build("mlflow-grpc-test:wrong", context, EXTRAS="s3,s4"), capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "EXTRAS=s3,s4: there is no extra s4" in done.stdout + done.stderr


def test_model_dir_without_a_model_fails_the_build(engine: Engine, context: Path) -> None:
    """A MODEL_DIR without a model fails the build with an explanation."""
    done = subprocess.run(
        engine.build("mlflow-grpc-test:wrong", context, MODEL_DIR="models"), capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "MODEL_DIR=models is not an MLflow model: it has no MLmodel file" in done.stdout + done.stderr
