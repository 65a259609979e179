"""The Python environment that a model carries along: `python_env.yaml`, `conda.yaml`, `requirements.txt`.

Rule of this module: it reads and fetches files, but installs nothing. A function of MLflow decides which file counts.
"""

import hashlib
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.environment_variables import MLFLOW_ENV_ROOT
from mlflow.utils.uri import append_to_uri_path

from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.error_text import one_line
from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.hosting.pyfunc.fetching import check_registry, fetch_error, is_local, local_directory
from mlflow_grpc.hosting.pyfunc.requirements_files import lines_of, requirements_of

MAX_DESCRIPTION_BYTES = 1024 * 1024
"""Maximum size of a file of a remote model that is fetched to read its requirements."""

_FILE_OF_THE_MODEL = re.compile(
    r"^\s*(?:(?:-e|--editable)(?:\s+|=))?(?!-)([^\s@:#;\[]*/[^\s#;\[]*|[^\s@:#;\[]+\.(?:whl|gz|zip))"
)
"""A requirement that is a path instead of a name, such as a wheel among the model's files."""


@dataclass(frozen=True)
class CarriedEnvironment:
    """The environment that a model needs, as requirements of pip."""

    uri: str
    directory: Path
    """Directory with the model's environment files, and with its other files if a requirement names one of them."""
    python: str
    """A version such as 3.11.7."""
    build_dependencies: tuple[str, ...]
    """Requirements that are installed first: pip, setuptools, wheel."""
    dependencies: tuple[str, ...]
    """Lines of a requirements file in the model's directory."""
    is_local: bool
    """True if the model need not be fetched."""
    is_temporary: bool = False
    """True if `read` created the directory, so that nothing else uses it."""

    def discard(self) -> None:
        """Removes the directory if it is temporary."""
        if self.is_temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def requirements(self) -> list[str]:
        """The requirements, including those of files that `-r` names, without constraints.

        Raises:
            StartError: A file that they name cannot be read.

        """
        parsed = requirements_of(self.dependencies, self.directory)
        return [requirement for requirement, is_constraint in parsed if not is_constraint]

    @property
    def has_hashes(self) -> bool:
        """True if pip must refuse packages without a listed hash."""
        return any("--hash" in line for line in self._lines())

    @property
    def needs_files(self) -> bool:
        """True if a requirement is a file of the model."""
        try:
            return any(_FILE_OF_THE_MODEL.match(line) for line in self._lines())
        except StartError:  # A requirements file that is not here may be among the model's other files.
            return True

    def digest(self) -> str:
        """Returns a hash of everything that decides what is installed."""
        lines = self._lines()
        content = hashlib.sha256(repr((self.python, self.build_dependencies, lines)).encode())
        for path in filter(None, map(_FILE_OF_THE_MODEL.match, lines)):
            for file in _files(self.directory / path[1]):
                content.update(f"\0{file.name}\0".encode() + file.read_bytes())
        return content.hexdigest()

    def _lines(self) -> list[str]:
        return [line.text for line in lines_of(self.dependencies, self.directory)]


def environments_root() -> Path:
    """Returns the directory in which MLflow keeps environments: MLFLOW_ENV_ROOT, or a directory of the user."""
    return Path(MLFLOW_ENV_ROOT.get()).expanduser().absolute()


def read(uri: str) -> CarriedEnvironment:
    """Reads the environment that the model at `uri` carries; fetches only small files of a remote model.

    Raises:
        StartError: The URI has no MLflow model, or the model has no environment files.

    """
    if (local := local_directory(uri)) is not None:
        return _read(local, uri)
    check_registry(uri)
    try:
        environment = _read_descriptions(uri)
        if environment.needs_files:
            environment.discard()
            # Not temporary: for a URI of a local directory, this is the model itself.
            environment = _read(Path(mlflow.artifacts.download_artifacts(artifact_uri=uri)), uri)
    except StartError:
        raise
    except Exception as error:
        raise fetch_error(uri, error) from error
    else:
        return environment


def fetch(uri: str, target: Path) -> None:
    """Copies all files of a model to a new directory.

    Raises:
        StartError: The model cannot be fetched.
        OSError: The target directory cannot be written.

    """
    if (local := local_directory(uri)) is not None:
        shutil.copytree(local, target)
        return
    check_registry(uri)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as folder:
        try:
            fetched = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
        except Exception as error:
            raise fetch_error(uri, error) from error
        shutil.copytree(fetched, target)


def _read(directory: Path, uri: str, *, is_temporary: bool = False) -> CarriedEnvironment:
    if not (directory / "MLmodel").is_file():
        raise StartError(f"{uri} is not an MLflow model: it has no MLmodel file")
    try:
        environment = internals.python_environment(directory.resolve())
    except FileNotFoundError as error:
        raise StartError(
            f"the model at {uri} carries no environment along (it has neither python_env.yaml nor conda.yaml): install "
            "what it needs yourself and serve it with --env-manager local"
        ) from error
    except Exception as error:
        raise StartError(f"the environment of the model at {uri} cannot be read: {one_line(error)}") from error
    return CarriedEnvironment(
        uri,
        directory.resolve(),
        environment.python,
        tuple(environment.build_dependencies),
        tuple(environment.dependencies),
        is_local(uri),
        is_temporary,
    )


def _read_descriptions(uri: str) -> CarriedEnvironment:
    """Fetches the small files at the top of a remote model to a temporary directory, and reads them."""
    directory = Path(tempfile.mkdtemp(prefix="mlflow-grpc-"))
    try:
        for info in mlflow.artifacts.list_artifacts(artifact_uri=uri):
            if not info.is_dir and (info.file_size or 0) <= MAX_DESCRIPTION_BYTES:
                source = append_to_uri_path(uri, Path(info.path).name)
                mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=str(directory))
        return _read(directory, uri, is_temporary=True)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return [path] if path.is_file() else []
