"""The files of a release, installed into an empty environment and used: `make release-check` builds them before."""

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from tests.support.servers import ROOT, Process

pytestmark = [pytest.mark.release, pytest.mark.timeout(900)]

DIST = ROOT / "dist"
FIRST_START_LIMIT_S = 400.0
"""Python compiles the modules of MLflow and of its libraries at the first start, on a machine that may be busy."""
FLOWERS = pd.DataFrame(
    [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]],
    columns=["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"],
)


def built(pattern: str) -> Path:
    """Returns the only file in dist/ with a name of this pattern."""
    (file,) = DIST.glob(pattern)
    return file


WHEELS = {"server": "server/mlflow_grpc-*.whl", "client": "client/mlflow_grpc_client-*.whl"}
SDISTS = {"server": "server/mlflow_grpc-*.tar.gz", "client": "client/mlflow_grpc_client-*.tar.gz"}


def message_in(wheel: Path) -> Message:
    """Returns a wheel's METADATA: its fields, and the README as its body."""
    with zipfile.ZipFile(wheel) as files:
        (name,) = [name for name in files.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(files.read(name).decode())


def metadata(wheel: Path) -> dict[str, list[str]]:
    """Returns the fields of a wheel's METADATA."""
    message = message_in(wheel)
    return {field: message.get_all(field, []) for field in message}


def install(folder: Path, *packages: str | Path) -> Path:
    """Creates an empty environment, installs packages into it, and returns its folder of commands."""
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, folder], check=True, timeout=100)
    command = [*uv, "pip", "install", "--quiet", "--python", folder, *packages]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    subprocess.run([*uv, "pip", "check", "--quiet", "--python", folder], check=True, timeout=100)
    return folder / "bin"


def clean() -> dict[str, str]:
    """Returns an environment in which no code of the repository can be imported."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW_", "MODEL_"))}


def run(*command: str | Path, cwd: Path) -> str:
    """Runs an installed command and returns what it prints."""
    done = subprocess.run(command, cwd=cwd, env=clean(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def version() -> str:
    """The version of the built server."""
    return metadata(built(WHEELS["server"]))["Version"][0]


@pytest.fixture(scope="module")
def server_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with both wheels, and the libraries of the example model."""
    folder = tmp_path_factory.mktemp("server") / "venv"
    return install(folder, built(WHEELS["server"]), built(WHEELS["client"]), "scikit-learn", "skops")


@pytest.fixture(scope="module")
def client_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with the client's sdist alone."""
    return install(tmp_path_factory.mktemp("client") / "venv", built(SDISTS["client"]))


@pytest.fixture(scope="module")
def address(server_bin: Path, iris_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the installed server with the example model."""
    command = [str(server_bin / "mlflow-grpc"), "serve", "-m", str(iris_path), "--model-name", "iris", "--port", "0"]
    env = dict.fromkeys((name for name in os.environ if name.startswith("PYTHON")), "")
    with Process(command, env, tmp_path_factory.mktemp("elsewhere")) as server:
        yield server.wait_for(r"ready: model iris .* on (\S+:\d+),", timeout_s=FIRST_START_LIMIT_S)[1]


def test_all_files_have_one_version(version):
    """Wheels and sdists of both distributions have one version, and the server needs the client of that version."""
    names = [file.name for file in sorted(DIST.glob("*/*"))]
    assert names == [
        f"mlflow_grpc_client-{version}-py3-none-any.whl",
        f"mlflow_grpc_client-{version}.tar.gz",
        f"mlflow_grpc-{version}-py3-none-any.whl",
        f"mlflow_grpc-{version}.tar.gz",
    ]
    assert metadata(built(WHEELS["client"]))["Version"] == [version]
    assert f"mlflow-grpc-client=={version}" in metadata(built(WHEELS["server"]))["Requires-Dist"]


@pytest.mark.parametrize("distribution", WHEELS)
def test_pages_of_an_index_have_links(distribution, version):
    """With the address of a repository, the metadata has it, and the README's links need no files beside it."""
    repository = os.environ.get("REPOSITORY")
    fields = metadata(built(WHEELS[distribution]))
    if not repository:
        assert "Project-URL" not in fields
        return
    assert f"Source, {repository}" in fields["Project-URL"]
    targets = re.findall(r"\]\(([^)]+)\)", str(message_in(built(WHEELS[distribution])).get_payload()))
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []
    assert any(target.startswith(f"{repository}/blob/v{version}/docs/") for target in targets)


@pytest.mark.parametrize("distribution", WHEELS)
def test_wheels_have_the_files_of_the_repository(distribution):
    """Each file of the packages in the repository is in the wheel, with nothing else beside the metadata."""
    packages = {"server": ["mlflow_grpc"], "client": ["client/mlflow_grpc_client", "client/_mlflow_grpc_protocol"]}
    listed = subprocess.run(
        ["git", "ls-files", "-z", *packages[distribution]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    expected = {name.removeprefix("client/") for name in listed.stdout.split("\0") if name}
    with zipfile.ZipFile(built(WHEELS[distribution])) as wheel:
        files = {name for name in wheel.namelist() if ".dist-info/" not in name}
        licenses = [name for name in wheel.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
        assert [wheel.read(name) for name in licenses] == [(ROOT / "LICENSE").read_bytes()]
    assert files == expected


def test_the_sdist_of_the_server_has_its_changelog(version):
    """The changelog in the sdist has a section for the version, or the changes that it will have."""
    with tarfile.open(built(SDISTS["server"])) as sdist:
        changelog = sdist.extractfile(f"mlflow_grpc-{version}/CHANGELOG.md")
        assert changelog is not None
        text = changelog.read().decode()
    assert re.search(rf"^## \[({re.escape(version)}\] - \d{{4}}-\d\d-\d\d|Unreleased\])\n+\S", text, re.MULTILINE)


def test_the_commands_know_their_version(server_bin, client_bin, version, tmp_path):
    """Both commands print the version."""
    assert run(server_bin / "mlflow-grpc", "--version", cwd=tmp_path) == f"mlflow-grpc, version {version}\n"
    assert run(client_bin / "mlflow-grpc-predict", "--version", cwd=tmp_path) == f"{version}\n"


def test_the_client_alone_predicts(address, client_bin, iris_path, tmp_path):
    """The installed client, without the server's packages, gets MLflow's predictions, in JSON and in the model's types."""
    expected = list(mlflow.pyfunc.load_model(str(iris_path)).predict(FLOWERS))
    assert len(set(expected)) == 2
    payload = json.dumps({"dataframe_split": FLOWERS.to_dict(orient="split", index=False)})
    printed = run(client_bin / "mlflow-grpc-predict", "--address", address, payload, cwd=tmp_path)
    assert json.loads(printed) == {"predictions": expected}
    code = f"""
import importlib.util, mlflow_grpc_client
for name in ("mlflow", "mlflow_grpc", "numpy", "pandas"):
    assert importlib.util.find_spec(name) is None, name
with mlflow_grpc_client.Client({address!r}) as client:
    print(*client.model("iris").predict({FLOWERS.to_dict(orient="records")!r}))
"""
    assert run(client_bin / "python", "-c", code, cwd=tmp_path).split() == expected


def test_the_installed_code_is_used(server_bin, tmp_path):
    """The server's modules come from its environment, not from the repository."""
    code = "import mlflow_grpc, mlflow_grpc_client; print(mlflow_grpc.__file__, mlflow_grpc_client.__file__)"
    files = run(server_bin / "python", "-c", code, cwd=tmp_path).split()
    assert [Path(file).is_relative_to(server_bin.parent) for file in files] == [True, True]
