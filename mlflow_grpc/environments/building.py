"""Builds a model's environment, or finds an existing one with the same content.

Rule of this module: the name of an environment is a hash of its content. An environment is valid only if it has a
marker, which is written last. Scripts in an environment contain its path, so it is built at its final path. Other
servers wait for the lock of the build. An environment without a marker comes from an interrupted build and is removed.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_grpc.choices import EnvManager
from mlflow_grpc.distribution import SERVER
from mlflow_grpc.environments import interpreters, requirements_files
from mlflow_grpc.environments.commands import CommandFailed, Commands
from mlflow_grpc.environments.wheels import Wheel
from mlflow_grpc.errors import StartError
from mlflow_grpc.own_loggers import get_logger

if TYPE_CHECKING:  # It imports MLflow.
    from mlflow_grpc.hosting.pyfunc.carried_environment import CarriedEnvironment

logger = get_logger(__name__)

MARKER = "mlflow-grpc.json"
"""File of a finished environment that lists its content."""

WHEELS = "wheels"
"""Directory of an environment with the wheels of its server and client."""

LOCK_INTERVAL_S = 0.5
"""Seconds between checks whether another server has finished its build."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the content of an environment."""

    manager: EnvManager
    carried: "CarriedEnvironment"
    wheels: tuple[Wheel, ...]
    """Wheels of the server and its client."""
    extras: tuple[str, ...] = ()
    """Extras of the server."""
    mlflow: str = ""
    """Version of MLflow to install in place of the model's; empty to install the model's."""

    @property
    def content(self) -> dict[str, object]:
        """The values that the name is a hash of."""
        return {
            "manager": self.manager.value,
            "python": self.carried.python,
            "model": self.carried.digest(),
            "wheels": {wheel.file_name: wheel.digest() for wheel in self.wheels},
            "extras": self.extras,
            "mlflow": self.mlflow,
        }

    @property
    def name(self) -> str:
        """The name of the environment's directory."""
        return f"mlflow-grpc-{hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()[:40]}"


def prepare(recipe: Recipe, root: Path, commands: Commands) -> Path:
    """Builds the environment of a recipe unless it exists, and returns its directory.

    Args:
        recipe: The content of the environment.
        root: Directory of all environments.
        commands: Runs commands and notices signals.

    Raises:
        StartError: The environment cannot be built. Its directory has been removed.
        Ended: A signal arrived. The unfinished directory has been removed.

    """
    directory = root / recipe.name
    with _locked(root / f"{recipe.name}.lock", commands) as lock:
        if _is_complete(directory):
            logger.info("found the model's environment in %s", directory)
            return directory
        _remove(directory)
        logger.info("building the model's environment in %s", directory)
        try:
            _Build(recipe, directory, commands, lock).run()
            _mark(directory, recipe)
        except CommandFailed as error:
            _remove(directory)
            raise StartError(
                f"the environment of the model at {recipe.carried.uri} cannot be built: {error}"
            ) from error
        except BaseException:
            _remove(directory)
            raise
    return directory


def python_of(directory: Path) -> Path:
    """Returns the path of an environment's interpreter."""
    return directory / "bin" / "python"


class _Build:
    """The commands that build an environment."""

    def __init__(self, recipe: Recipe, directory: Path, commands: Commands, lock: int) -> None:
        self._recipe = recipe
        self._directory = directory
        self._commands = commands
        self._lock = lock
        self._uv = interpreters.find_uv() if recipe.manager is EnvManager.UV else None

    def run(self) -> None:
        self._create()
        carried = self._recipe.carried
        server_and_client = self._write_wheels()
        with _writable_view(carried.directory) as view:
            requirements_files.write_requirements(view, carried.build_dependencies, carried.dependencies)
            if carried.build_dependencies:
                self._install("-r", requirements_files.BUILD, cwd=view)
            model = ["-r", requirements_files.MODEL]
            if self._recipe.mlflow:
                self._install(*model, cwd=view)
                self._install(f"mlflow=={self._recipe.mlflow}", *server_and_client, cwd=view)
            elif carried.has_hashes:
                # Separately, because pip would require hashes for all packages that it installs in the same run.
                self._install(*model, cwd=view)
                self._install(*server_and_client, cwd=view)
            else:
                # Together, so that pip chooses versions that suit both, or reports the conflict and installs nothing.
                self._install(*model, *server_and_client, cwd=view)
        self._run(SERVER, [python_of(self._directory), "-I", self._directory / "bin" / SERVER, "--version"])

    def _create(self) -> None:
        version = self._recipe.carried.python
        interpreter = interpreters.find(version, uv=self._uv)
        if self._uv:
            create = [self._uv, "venv", "--no-project", "--python"]
            try:
                # If it gets a version, uv fetches an interpreter unless that is disabled.
                self._run("uv venv", [*create, interpreter or version, self._directory])
            except CommandFailed as error:
                if interpreter is None:
                    raise StartError(f"{interpreters.missing(version)}. It could not be fetched: {error}") from error
                raise
        elif interpreter:
            self._run("venv", [interpreter, "-I", "-m", "venv", self._directory])
        else:
            raise interpreters.missing(version)

    def _write_wheels(self) -> list[str]:
        """Writes the wheels into the environment and returns requirements for them."""
        directory = self._directory / WHEELS
        directory.mkdir()
        requirements = []
        for wheel in self._recipe.wheels:
            extras = f"[{','.join(self._recipe.extras)}]" if self._recipe.extras and wheel.name == SERVER else ""
            requirements.append(f"{wheel.name}{extras} @ {wheel.write(directory).as_uri()}")
        return requirements

    def _install(self, *arguments: str, cwd: Path) -> None:
        python = python_of(self._directory)
        if self._uv:
            # Compiled, as pip does it, because a server that may not write bytecode takes a minute to start.
            install: list[str | Path] = [self._uv, "pip", "install", "--compile-bytecode", "--python", python]
            self._run("uv pip install", [*install, *arguments], cwd=cwd)
        else:
            # Isolated, so that pip imports its own modules neither from the model's directory nor from PYTHONPATH.
            quiet = ["--no-input", "--progress-bar", "off", "--disable-pip-version-check"]
            self._run("pip install", [python, "-I", "-m", "pip", "install", *quiet, *arguments], cwd=cwd)

    def _run(self, label: str, command: Sequence[str | Path], *, cwd: Path | None = None) -> None:
        # The command inherits the lock file. If this process is killed, the command still holds the lock, so that no
        # other server builds in the same directory.
        self._commands.run(command, label=label, cwd=cwd, keep_open=(self._lock,))


@contextmanager
def _locked(path: Path, commands: Commands) -> Iterator[int]:
    """Holds a lock that only one process on this machine can have; yields its file descriptor."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StartError(
            f"environments cannot be kept in {path.parent} ({error.strerror}): set MLFLOW_ENV_ROOT to a directory that "
            "can be written to"
        ) from error
    try:
        is_waiting = False
        while not _try_to_lock(lock):
            if not is_waiting:
                logger.info("waiting for another server, which builds the same environment")
                is_waiting = True
            commands.pause(LOCK_INTERVAL_S)
        yield lock
    finally:
        os.close(lock)


def _try_to_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_complete(directory: Path) -> bool:
    """Returns True if an environment was finished and its interpreter still works."""
    if not (directory / MARKER).is_file():
        return False
    try:
        completed = subprocess.run(  # noqa: S603 - the environment's own interpreter
            [python_of(directory), "-I", "-c", ""], check=False, capture_output=True, stdin=subprocess.DEVNULL
        )
    except OSError:
        return False
    return completed.returncode == 0


def _mark(directory: Path, recipe: Recipe) -> None:
    unfinished = directory / f"{MARKER}.tmp"
    unfinished.write_text(json.dumps({**recipe.content, "uri": recipe.carried.uri}, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(directory / MARKER)


def _remove(directory: Path) -> None:
    """Removes a directory, starting with its marker, so that a partly removed environment counts as unfinished."""
    (directory / MARKER).unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _writable_view(model: Path) -> Iterator[Path]:
    """Yields a writable directory with links to a model's files, so that relative paths in requirements are valid."""
    with tempfile.TemporaryDirectory(prefix="mlflow-grpc-") as folder:
        view = Path(folder)
        for path in model.iterdir():
            (view / path.name).symlink_to(path)
        yield view
