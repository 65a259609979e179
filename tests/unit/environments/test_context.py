"""The build context of an image that `mlflow-grpc dockerfile` writes for a model."""

import shutil
from pathlib import Path

import mlflow
import pytest
from mlflow.pyfunc.model import PythonModel

from mlflow_grpc.environments import context, wheels
from mlflow_grpc.errors import StartError
from tests.support.servers import ROOT, Forked

pytestmark = pytest.mark.slow


class Echo(PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "echo"
    mlflow.pyfunc.save_model(path, python_model=Echo(), pip_requirements=["mlflow", "toolz==1.0.0"])
    return path


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def write(model: Path | str, directory: Path, *, name: str | None = None, overwrite: bool = False) -> Path:
    context.write(str(model), directory, name=name, tag="echo", overwrite=overwrite)
    return directory


@pytest.mark.parametrize("form", [str, Path.as_uri], ids=["directory", "URI"])
def test_the_context_has_everything_the_image_needs(model, tmp_path, form):
    """The context has the model's files, both wheels, and the requirements as MLflow reads them."""
    directory = write(form(model), tmp_path / "context")
    assert sorted(path.name for path in directory.iterdir()) == sorted(context.ENTRIES)
    assert contents(directory / "model") == contents(model)
    packed = wheels.pack_server_and_client()
    assert contents(directory / "wheels") == {wheel.file_name: wheel.data for wheel in packed}
    requirements = contents(directory / "requirements")
    assert requirements["mlflow-grpc-model-requirements.txt"] == b"-r requirements.txt\n"
    assert b"pip" in requirements["mlflow-grpc-build-requirements.txt"]


def test_files_that_the_dockerfile_copies_exist(model, tmp_path):
    """Every COPY in the Dockerfile names a file of the context."""
    directory = write(model, tmp_path / "context")
    lines = (directory / "Dockerfile").read_text().splitlines()
    sources = [line.split()[1] for line in lines if line.startswith("COPY") and "--from" not in line]
    assert sorted(sources) == ["model", "requirements", "wheels"]
    assert all((directory / source).exists() for source in sources)


def test_the_last_stage_equals_the_repositorys(model, tmp_path):
    """User, environment, port, health check and entry point equal those of the repository's own Dockerfile."""
    stages = (
        text.read_text().rpartition("\nFROM ")[2]
        for text in (write(model, tmp_path / "x") / "Dockerfile", ROOT / "Dockerfile")
    )
    generated, model_stage = stages
    assert generated == model_stage
    for word in ("USER", "HEALTHCHECK", "ENTRYPOINT", "EXPOSE 50051"):
        assert word in generated


def test_the_model_name_is_that_of_a_server(model, tmp_path):
    """The model has the name from its URI, as in a server, or a chosen name; the last stage uses it."""
    for directory, name, expected in ((tmp_path / "a", None, "echo"), (tmp_path / "b", "churn", "churn")):
        text = (write(model, directory, name=name) / "Dockerfile").read_text()
        assert f"\nARG MODEL_NAME={expected}\n" in text.partition("\nFROM ")[0]
        assert "\nARG MODEL_NAME\n" in text.rpartition("\nFROM ")[2]


def test_the_image_has_the_models_python(model, tmp_path):
    """The base image has the minor version of Python that the model was logged with."""
    newer = shutil.copytree(model, tmp_path / "newer")
    (newer / "python_env.yaml").write_text("python: 3.12.9\n")
    text = (write(newer, tmp_path / "context") / "Dockerfile").read_text()
    assert "\nARG PYTHON_IMAGE=python:3.12-slim-bookworm\n" in text


def test_existing_files_are_kept(model, tmp_path):
    """A directory that is not empty is refused. --force replaces the files of a context and keeps others."""
    directory = tmp_path / "context"
    write(model, directory)
    (directory / "model" / "old").touch()
    (directory / "mine").touch()
    with pytest.raises(StartError, match=r"is not empty: .* --force"):
        write(model, directory)
    assert (directory / "model" / "old").exists()
    write(model, directory, overwrite=True)
    assert not (directory / "model" / "old").exists()
    assert (directory / "mine").exists()


def test_an_empty_directory_is_filled(model, tmp_path):
    """A build context is written into an empty directory that exists already."""
    assert (write(model, tmp_path) / "Dockerfile").is_file()


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        (None, "name it with -m"),
        ("mlmodel:a.B", "one MLflow model"),
        ("none", "there is no such directory"),
        ("nowhere:/x", "cannot fetch"),
    ],
)
def test_a_failed_run_creates_no_directory(tmp_path, uri, error):
    """A missing model is an error of one line, and no directory is created."""
    with pytest.raises(StartError, match=error):
        context.write(uri, tmp_path / "context", name=None, tag="x", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_an_old_model_is_refused(model, tmp_path):
    """A model whose Python the server does not support is refused before anything is written."""
    old = shutil.copytree(model, tmp_path / "old")
    (old / "python_env.yaml").write_text("python: 3.8.18\n")
    with pytest.raises(StartError, match=r"Python 3\.8\.18"):
        write(old, tmp_path / "context")
    assert not (tmp_path / "context").exists()


def test_a_line_break_in_a_uri_stays_in_its_comment(model, tmp_path):
    """A model's path cannot write instructions into the Dockerfile."""
    odd = shutil.copytree(model, tmp_path / "a\nRUN false")
    lines = (write(odd, tmp_path / "context") / "Dockerfile").read_text().splitlines()
    assert not [line for line in lines if line.startswith("RUN false")]


def test_the_command_prints_the_next_step(model, tmp_path):
    """The command writes the context and prints how to build it. A second run ends with exit code 2 and one line."""
    command = ["dockerfile", "-m", str(model), "-o", str(tmp_path / "Context")]
    with Forked(command) as done:
        assert done.wait() == 0
    assert f"docker build -t context {tmp_path / 'Context'}" in "\n".join(done.stdout)
    with Forked(command) as again:
        assert again.wait() == 2
    (error,) = again.stderr
    assert error.startswith("Error: ")
