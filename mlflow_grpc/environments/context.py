"""Writes the build context of an image that serves one model: a Dockerfile and the files that it copies.

The directory contains the model's files (`model/`), the server and its client as wheels (`wheels/`), the model's
requirements (`requirements/`) and the Dockerfile. Its last stage is the same as in the repository's own Dockerfile.
"""

import shutil
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from mlflow_grpc import logs
from mlflow_grpc.environments import interpreters, support
from mlflow_grpc.environments.requirements_files import write_requirements
from mlflow_grpc.environments.wheels import Wheel, pack_server_and_client
from mlflow_grpc.errors import StartError, writing
from mlflow_grpc.hosting.pyfunc import carried_environment, fetching
from mlflow_grpc.naming import name_from_uri, without_secrets

ENTRIES = ("Dockerfile", "model", "wheels", "requirements")
"""Entries of a build context."""

_HEADER = """\
# An image that serves the MLflow model {uri}, written by `mlflow-grpc dockerfile`:
#   docker build -t {tag} .
#   docker run -p 50051:50051 -p 8080:8080 {tag}

# The minor version of Python that the model was logged with.
ARG PYTHON_IMAGE=python:{minor}-slim-bookworm
# The name of the model for callers.
ARG MODEL_NAME={name}

"""


def write(uri: str | None, directory: Path, *, name: str | None, tag: str, overwrite: bool) -> None:
    """Writes a build context.

    Args:
        uri: URI of the model.
        directory: Directory to write, which need not exist.
        name: Name of the model for callers. None for the name from its URI.
        tag: Tag of the image in the comments of the Dockerfile.
        overwrite: True to replace the files of an earlier run.

    Raises:
        StartError: The model cannot be fetched or cannot share an environment with the server, or the directory is not
            empty.
        NotWritten: The directory cannot be written.

    """
    if uri is None or uri.startswith("mlmodel:"):
        raise StartError("an image is written for one MLflow model: name it with -m / --model-uri or MODEL_PATH")
    if not overwrite and directory.exists() and any(directory.iterdir()):
        raise StartError(f"{directory} is not empty: name another directory, or replace what is there with --force")
    packed = pack_server_and_client()
    uri = fetching.with_version(uri)  # The same version below, even if its alias is moved meanwhile.
    carried = carried_environment.read(uri)
    try:
        support.check(carried)
    finally:
        carried.discard()  # All files of the model are fetched below.
    with writing(directory):
        _write_files(uri, directory, carried, packed, tag, name)


def _write_files(
    uri: str,
    directory: Path,
    carried: carried_environment.CarriedEnvironment,
    packed: Sequence[Wheel],
    tag: str,
    name: str | None,
) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    # In the parent directory, so that only complete files are moved to the directory.
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as folder:
        unfinished = Path(folder)
        carried_environment.fetch(uri, unfinished / "model")
        (unfinished / "wheels").mkdir()
        for wheel in packed:
            wheel.write(unfinished / "wheels")
        (unfinished / "requirements").mkdir()
        write_requirements(unfinished / "requirements", carried.build_dependencies, carried.dependencies)
        minor = interpreters.minor_of(carried.python)
        shown = logs.escape(without_secrets(uri))
        header = _HEADER.format(uri=shown, tag=tag, minor=minor, name=name or name_from_uri(uri))
        stages = resources.files(__package__).joinpath("Dockerfile").read_text(encoding="utf-8")
        (unfinished / "Dockerfile").write_text(header + stages, encoding="utf-8")
        directory.mkdir(exist_ok=True)
        for entry in ENTRIES:
            _replace(unfinished / entry, directory / entry)


def _replace(source: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    source.replace(target)
