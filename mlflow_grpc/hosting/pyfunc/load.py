"""Loading of MLflow models.

Rule of this module: every failure to load a model becomes a StartError of one line.
"""

import json
import platform
import zlib
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

from mlflow.models import Model
from mlflow.models.utils import SERVING_INPUT_FILENAME

from mlflow_grpc.choices import Requirements
from mlflow_grpc.contract.lockfile import io as lock_io
from mlflow_grpc.contract.lockfile.format import FILE_NAME as LOCK_FILE
from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.error_text import chain, location_in_model, one_line
from mlflow_grpc.hosting.pyfunc import internals, model_code
from mlflow_grpc.hosting.pyfunc.fetching import MODEL_URI_HINT, FetchedModel
from mlflow_grpc.hosting.pyfunc.model import PyfuncModel
from mlflow_grpc.hosting.pyfunc.requirements import (
    FILE,
    UnmetRequirement,
    install_command,
    listed,
    unmet_requirements,
)
from mlflow_grpc.naming import name_from_uri
from mlflow_grpc.own_loggers import get_logger

logger = get_logger(__name__)

OF_DAMAGED_FILES = (BadZipFile, UnpicklingError, EOFError, zlib.error, json.JSONDecodeError)
"""Exceptions for a file that was cut off or changed on its way."""


def load_pyfunc(
    fetched: FetchedModel,
    *,
    name: str | None = None,
    config: dict[str, Any] | None = None,
    requirements: Requirements = Requirements.CHECK,
) -> PyfuncModel:
    """Loads an MLflow model; models are loaded one after the other, because unpickling in two threads can deadlock.

    Args:
        fetched: The model's files.
        name: The model's name. Derived from the URI if None.
        config: MLflow's `model_config`.
        requirements: Decides which unmet requirements make the server refuse the model.

    Raises:
        StartError: The directory has no valid MLflow model, its requirements are not met, or its lock file is invalid.

    """
    directory, uri = fetched.directory, fetched.uri
    internals.read_mlmodel_files_by_libyaml()
    metadata = _read_metadata(directory, uri)
    unmet = _unmet(directory, uri, requirements)
    _check_requirements(unmet, requirements, directory)
    differences = [*map(str, unmet), *_python_difference(metadata)]
    if differences:
        logger.warning(
            "%s: its requirements differ from what is installed: %s", name or name_from_uri(uri), ", ".join(differences)
        )
    try:
        # MLflow's own warnings repeat the line above.
        model = model_code.load_model(
            uri, directory=directory, metadata=metadata, config=config, suppress_warnings=True
        )
    except StartError as error:
        raise StartError(f"the model at {uri} cannot be loaded: {error}") from error
    except BaseException as error:
        logger.debug("loading the model at %s raised", uri, exc_info=error)
        raise StartError(_load_error(uri, error, directory, unmet)) from error
    internals.enter_serving_environment()
    payload = directory / SERVING_INPUT_FILENAME
    hosted = PyfuncModel(
        name or name_from_uri(uri),
        model,
        version=fetched.version,
        payload=payload.read_text(encoding="utf-8", errors="replace") if payload.is_file() else "",
    )
    if (directory / LOCK_FILE).is_file():
        hosted.info = replace(hosted.info, lock=lock_io.read(directory / LOCK_FILE))
    return hosted


def _unmet(directory: Path, uri: str, requirements: Requirements) -> list[UnmetRequirement]:
    """Returns the unmet requirements of the model.

    A requirement that cannot be checked is only a warning, as in MLflow, unless requirements are strict. A file that
    cannot be read ends MLflow's server, and here it is a warning only if requirements cannot refuse a model.
    """
    try:
        unmet, invalid = unmet_requirements(directory)
    except StartError as error:
        if requirements is not Requirements.WARN:
            raise StartError(f"{error}. Or serve the model anyway with --requirements warn") from error
        logger.warning("%s: %s", uri, error)
        return []
    if invalid and requirements is Requirements.STRICT:
        raise StartError(f"{'; '.join(invalid)}. Correct the file, or serve the model with --requirements check")
    for line in invalid:
        logger.warning("%s: %s", uri, line)
    return unmet


def _check_requirements(unmet: list[UnmetRequirement], requirements: Requirements, directory: Path) -> None:
    missing = [item for item in unmet if item.installed is None]
    refused = {Requirements.STRICT: unmet, Requirements.CHECK: missing, Requirements.WARN: []}[requirements]
    if refused:
        raise StartError(
            f"the model's requirements are not met by this environment: {listed(unmet)}. Install them with "
            f"`{install_command(unmet, directory)}`, or serve it anyway with --requirements warn"
        )


def _python_difference(metadata: Model) -> list[str]:
    """Returns a text with the Python version that the model was logged with, if its minor version differs."""
    flavor = metadata.flavors[internals.FLAVOR_NAME]
    logged = str(flavor.get("python_version") or "") if isinstance(flavor, dict) else ""
    running = platform.python_version()
    if not logged or logged.split(".")[:2] == running.split(".")[:2]:
        return []
    return [f"Python {logged} (this is {running})"]


def _load_error(uri: str, error: BaseException, directory: Path, unmet: list[UnmetRequirement]) -> str:
    missing = next((cause for cause in chain(error) if isinstance(cause, ModuleNotFoundError)), None)
    if missing is not None:
        reason = (
            f"the model needs the Python module {missing.name!r}, which is not installed here. Install the package "
            f"that it is in, which the model's requirements should name ({directory / FILE})"
        )
    else:
        reason = f"the model at {uri} cannot be loaded: {one_line(error)}{location_in_model(error, directory)}"
        if isinstance(error, OF_DAMAGED_FILES):
            reason += ". One of its files may be damaged or incomplete: fetch the model again"
    if not unmet:
        return reason
    return (
        f"{reason}. Its requirements differ from what is installed, which may be why: {listed(unmet)}. Install them "
        f"with `{install_command(unmet, directory)}`"
    )


def _read_metadata(directory: Path, uri: str) -> Model:
    """Reads the MLmodel file.

    Raises:
        StartError: The file is missing or broken, or Python cannot serve the model.

    """
    if not (directory / "MLmodel").is_file():
        raise StartError(f"{uri} is not an MLflow model: it has no MLmodel file ({MODEL_URI_HINT})")
    try:
        metadata = Model.load(str(directory))
    except Exception as error:
        raise StartError(f"the MLmodel file of {uri} is broken: {one_line(error)}") from error
    if not isinstance(metadata.flavors, dict):
        raise StartError(f"the MLmodel file of {uri} is broken: flavors has to be a mapping")
    if internals.FLAVOR_NAME not in metadata.flavors:
        raise StartError(
            f"{uri} has no {internals.FLAVOR_NAME} flavor, only {', '.join(metadata.flavors) or 'none at all'}: "
            "log it with a flavor that Python can serve"
        )
    return metadata
