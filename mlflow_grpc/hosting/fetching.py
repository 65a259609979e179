"""Where an MLflow model is: the version that its URI means, and a local directory with its files.

Rule of this module: it fetches and imports no code of a model, so that several models may be fetched at the same time.
An alias or `latest` is looked up once; the version that it means then is the one that is fetched, served and shown.
"""

import contextlib
import difflib
import importlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting import mlflow_internals as internals
from mlflow_grpc.hosting.classes import one_line
from mlflow_grpc.hosting.remote import CLIENTS, missing_library
from mlflow_grpc.naming import without_password

WHAT_A_MODEL_IS = "an MLflow model is a directory with an MLmodel file, or a URI such as models:/name/1"

MAX_LISTED = 10
"""How many versions or names an error lists."""


@dataclass(frozen=True)
class FetchedModel:
    """A model whose files are on this machine."""

    uri: str
    """As it was configured, without a password."""
    directory: Path
    version: str = ""
    """Its version in the registry; empty if it is not from one."""


def fetch(uri: str) -> FetchedModel:
    """Fetches a model; may be called from several threads at a time.

    Args:
        uri: A directory, a `file:` URI, or any URI that `mlflow.artifacts.download_artifacts` takes.

    Raises:
        StartError: There is no such model, or its registry or storage does not give it out.

    """
    if (directory := local_directory(uri)) is not None:
        # MLflow 3.17 refuses a directory that it reaches through a link, as one outside of where it looks.
        return FetchedModel(without_password(uri), directory.resolve())
    check_registry(uri)
    try:
        registered = internals.registered_version(uri)
        exact = "models:/{}/{}".format(*registered) if registered else uri
        directory = Path(mlflow.artifacts.download_artifacts(artifact_uri=exact))
        return FetchedModel(without_password(uri), directory, registered[1] if registered else "")
    except BaseException as error:
        raise fetch_error(uri, error) from error


def fetch_error(uri: str, error: BaseException) -> StartError:
    """Why a model cannot be fetched, and what to do about it.

    Args:
        uri: Of the model.
        error: What MLflow raised.

    """
    reason = missing_library(error) or _reason(uri, error)
    return StartError(without_password(f"cannot fetch the model {uri}: {reason}"))


def import_clients(uris: Iterable[str]) -> None:
    """Imports the clients of registries and object stores that fetching may need, as far as they are installed.

    MLflow imports them late. While several models are fetched and loaded, threads that import at the same time could
    deadlock; so the main thread does it before.
    """
    schemes = {uri.partition(":")[0].lower() for uri in uris}
    if schemes & {"models", "runs"}:
        internals.import_database_stores()
        schemes |= CLIENTS.keys()  # Where the registry has a model's files is not known yet.
    for module in sorted({module for scheme in schemes for module in CLIENTS.get(scheme, ())}):
        with contextlib.suppress(ImportError):  # Not installed; MLflow says so if it is needed.
            importlib.import_module(module)


def is_local(uri: str) -> bool:
    """Whether a URI names a directory, there or not, so that nothing is fetched."""
    scheme = re.match(r"^([A-Za-z][A-Za-z0-9+.-]*):", uri)
    return scheme is None or scheme[1].lower() == "file" or Path(uri).expanduser().exists()


def local_directory(uri: str) -> Path | None:
    """The directory that a path or a `file:` URI names; None for a URI of another scheme.

    A `file:` URI may be written with or without percent-encoding; what exists is taken.

    Raises:
        StartError: There is no such directory.

    """
    if not is_local(uri):
        return None
    paths = [Path(uri).expanduser()]
    if re.match(r"^file:", uri, re.IGNORECASE) and not paths[0].exists():
        path = urlsplit(uri, allow_fragments=False).path
        paths = [Path(unquote(path)), Path(path)]
    found = next((path for path in paths if path.exists()), None)
    if found is None:
        tried = " or ".join(dict.fromkeys(str(path.absolute()) for path in paths))
        meant = f" at {tried}" if tried != uri else ""
        raise StartError(f"no model at {uri}: there is no such directory{meant} ({WHAT_A_MODEL_IS})")
    return found


def check_registry(uri: str) -> None:
    """Keeps MLflow from making an empty database in the working directory, only to find nothing in it.

    Raises:
        StartError: The URI names a registered model or a run, and no server that has it is set.

    """
    if not uri.startswith(("models:", "runs:")):
        return
    if (store := internals.default_store()) is not None and not store.exists():
        raise StartError(
            f"cannot fetch the model {uri}: MLFLOW_TRACKING_URI is not set, and the default {store} does not exist. "
            "Set MLFLOW_TRACKING_URI to the MLflow server that has the model, such as http://mlflow.example:5000"
        )


def _reason(uri: str, error: BaseException) -> str:
    reason = one_line(error)
    if not uri.startswith(("models:", "runs:")):
        return reason
    asked = mlflow.get_registry_uri() if uri.startswith("models:") else mlflow.get_tracking_uri()
    reason = f"{reason.rstrip('.')}. The registry that was asked is {asked}"
    if not internals.is_tracking_uri_set():
        reason += ", because MLFLOW_TRACKING_URI is not set"
    hint = _hint(uri) if uri.startswith("models:") and isinstance(error, MlflowException) else ""
    return f"{reason}.{hint}"


def _hint(uri: str) -> str:
    """What the registry has instead; empty if it does not say."""
    name = re.split(r"[/@]", uri.removeprefix("models:").strip("/"))[0]
    has_version = re.match(r"^models:/+[^/@]+(/[^/]+|@.+)$", uri)
    written = "" if has_version else f" {uri} has no version: write models:/{name}/1 or models:/{name}@alias."
    try:
        versions, aliases = internals.versions_of(name)
        if versions:
            newest = sorted(versions, key=int, reverse=True)[:MAX_LISTED]
            named = ", ".join(f"{alias} (version {version})" for alias, version in sorted(aliases.items()))
            with_aliases = f"the aliases {named}" if named else "no alias"
            return f"{written} {name} has the versions {', '.join(newest)} and {with_aliases}."
        names = internals.registered_names()
    except MlflowException:
        return written
    near = difflib.get_close_matches(name, names, MAX_LISTED) or sorted(names)[:MAX_LISTED]
    return f"{written} It has no model {name}, but {', '.join(near) or 'none at all'}."
