"""Restarts the server in the environment that its model carries along."""

import importlib.metadata
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mlflow_grpc import logs
from mlflow_grpc.choices import EnvManager
from mlflow_grpc.distribution import SERVER, install_source, installed_extras
from mlflow_grpc.environments import building, support
from mlflow_grpc.environments.building import Recipe
from mlflow_grpc.environments.commands import Commands
from mlflow_grpc.environments.wheels import pack_server_and_client
from mlflow_grpc.errors import StartError
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.settings import Settings, spelling

if TYPE_CHECKING:  # It imports MLflow.
    from mlflow_grpc.hosting.pyfunc.carried_environment import CarriedEnvironment

logger = get_logger(__name__)


def prepare(loaded: Settings, *, install_mlflow: bool) -> tuple[Path, str]:
    """Finds or builds the environment of the model that the settings name.

    Args:
        loaded: Settings with one model and an environment manager other than `local`.
        install_mlflow: True to install this environment's version of MLflow instead of the one that the model requires.

    Returns:
        The directory of the environment, and the model's URI with the version that an alias or `latest` means, which
        the server in the environment has to serve.

    Raises:
        StartError: The environment does not exist and cannot be built.
        Ended: A signal arrived.

    """
    manager = f"{spelling('env_manager')} {loaded.env_manager.value}"
    if loaded.env_manager is EnvManager.CONDA:
        raise StartError(
            f"{manager} is not supported: use virtualenv or uv, or create the environment yourself (conda env create "
            f"-f MODEL/conda.yaml), put this server into it (pip install {install_source()}) and start it there with "
            f"{spelling('env_manager')} local"
        )
    if loaded.config is not None or loaded.model_uri is None:
        raise StartError(
            f"{manager} is for one model, and {spelling('config')} may list several, which share one process and its "
            f"environment: serve them with {spelling('env_manager')} local, or one by one in servers of their own"
        )
    uri = loaded.model_uri
    if uri.startswith("mlmodel:"):
        raise StartError(
            f"{uri} is a Python package, which carries no environment along: install it beside the server and serve it "
            f"with {spelling('env_manager')} local"
        )
    packed = pack_server_and_client()
    with Commands() as commands:
        carried, root = commands.call(lambda: _read(uri))
        try:
            support.check(carried, install_mlflow=install_mlflow)
            recipe = Recipe(
                loaded.env_manager,
                carried,
                packed,
                # The server in the environment fetches a remote model itself, so it needs the same extras as this one.
                extras=() if carried.is_local else installed_extras(),
                mlflow=importlib.metadata.version("mlflow") if install_mlflow else "",
            )
            return building.prepare(recipe, root, commands), carried.uri
        finally:
            carried.discard()


def start(directory: Path, flags: Sequence[str]) -> NoReturn:
    """Replaces this process with `mlflow-grpc serve` in an environment; the process id and the streams stay the same.

    Args:
        directory: Directory of the environment.
        flags: Command-line flags of this server.

    """
    python = building.python_of(directory)
    command = [str(python), str(directory / "bin" / SERVER), "serve", *flags, "--env-manager=local"]
    logger.info("starting in the model's environment: %s", directory)
    logging.shutdown()  # Writes the queued lines.
    os.execve(python, command, _activated(directory))  # noqa: S606 - the server's own program, without a shell


def _activated(directory: Path) -> dict[str, str]:
    """Returns the environment variables of a process in a virtual environment, as its `bin/activate` sets them."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
    path = os.pathsep.join((str(directory / "bin"), *os.get_exec_path()))
    return {**variables, "VIRTUAL_ENV": str(directory), "PATH": path}


def _read(uri: str) -> "tuple[CarriedEnvironment, Path]":
    # Imported here, in another thread, because MLflow takes seconds to import, and the main thread waits for signals.
    from mlflow_grpc.hosting.pyfunc import carried_environment, fetching

    logs.adopt()
    with fetching.warn_if_slow(uri):
        return carried_environment.read(fetching.with_version(uri)), carried_environment.environments_root()
