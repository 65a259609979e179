"""Download of MLflow models: resolves the version that a URI names, and returns a local directory with the files.

Rule of this module: it fetches files, but imports no code of a model, so that several models can be fetched at a time.
An alias or `latest` is resolved only once, so that the same version is fetched, served and shown.
"""

import contextlib
import difflib
import importlib
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_registered_artifact_repositories

from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.error_text import one_line
from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.hosting.pyfunc.remote import CLIENTS, missing_library
from mlflow_grpc.naming import without_secrets
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.registry_versions import RegistryVersions, exact_uri

logger = get_logger(__name__)

MODEL_URI_HINT = "an MLflow model is a directory with an MLmodel file, or a URI such as models:/name/1"

SLOW_S = 10.0
"""Seconds without an answer of a registry after which a log line reports it."""

MAX_LISTED = 10
"""Maximum number of versions or names in an error message."""


@dataclass(frozen=True)
class FetchedModel:
    """A model whose files are on this machine."""

    uri: str
    """The configured URI, without a password."""
    directory: Path
    version: str = ""
    """Version in the registry; empty if the model does not come from a registry."""


def fetch(uri: str, versions: RegistryVersions | None = None, into: Path | None = None) -> FetchedModel:
    """Fetches a model; several threads may call this function at a time.

    Args:
        uri: A directory, a `file:` URI, or any URI that `mlflow.artifacts.download_artifacts` takes.
        versions: Versions that aliases mean to the server; without them, the registry decides.
        into: Directory for the files of a remote model; by default MLflow chooses one, which is never deleted.

    Raises:
        StartError: The model does not exist, or its registry or storage refuses it.

    """
    if (directory := local_directory(uri)) is not None:
        # MLflow 3.17 refuses a directory behind a symbolic link, because it takes it for one outside of its root.
        return FetchedModel(without_secrets(uri), directory.resolve())
    check_registry(uri)
    try:
        registered = (versions or RegistryVersions()).resolve(uri, internals.registered_version)
        exact = exact_uri(registered) if registered else uri
        destination = None if into is None else str(into)
        directory = Path(mlflow.artifacts.download_artifacts(artifact_uri=exact, dst_path=destination))
        return FetchedModel(without_secrets(uri), directory, registered[1] if registered else "")
    except BaseException as error:
        raise fetch_error(uri, error) from error


def with_version(uri: str) -> str:
    """Returns a URI that always means the version that an alias or `latest` means now; other URIs unchanged.

    Raises:
        StartError: The registry does not have the model, or cannot be reached.

    """
    if is_local(uri):
        return uri
    check_registry(uri)
    try:
        registered = internals.registered_version(uri)
    except BaseException as error:
        raise fetch_error(uri, error) from error
    if registered is None or exact_uri(registered) == uri:
        return uri
    logger.info("%s is version %s", uri, registered[1])
    return exact_uri(registered)


def fetch_error(uri: str, error: BaseException) -> StartError:
    """Returns an error that states why a model cannot be fetched, and what to do about it.

    Args:
        uri: URI of the model.
        error: The exception that MLflow raised.

    """
    reason = missing_library(error) or _reason(uri, error)
    return StartError(f"cannot fetch the model {uri}: {reason}")


@contextlib.contextmanager
def warn_if_slow(uri: str, advice: str = "") -> Iterator[None]:
    """Logs a warning if fetching takes long, because MLflow's HTTP client retries a dead server for minutes.

    Args:
        uri: URI of the model.
        advice: A sentence on how to end the wait.

    """
    state = f"still waiting for {model_source(uri)}.{advice and ' '}{advice}"
    message = f"{uri} has not been fetched after {SLOW_S:g} s: {state}"
    timer = threading.Timer(SLOW_S, logger.warning, ("%s", message))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def model_source(uri: str) -> str:
    """Returns the registry or storage of a model's files for a log line or an error, which remove its password."""
    return f"the registry {_registry(uri)}" if uri.startswith(("models:", "runs:")) else "its storage"


def import_clients(uris: Iterable[str]) -> None:
    """Imports the installed clients of registries and object stores that fetching may need.

    MLflow imports them on first use. While several models are fetched and loaded, two threads that import at the same
    time could deadlock, so the main thread imports the clients first.
    """
    schemes = {uri.partition(":")[0].lower() for uri in uris}
    if schemes & {"models", "runs"}:
        internals.import_database_stores()
        schemes |= CLIENTS.keys()  # The registry may have the files in any object store.
    for module in sorted({module for scheme in schemes for module in CLIENTS.get(scheme, ())}):
        with contextlib.suppress(ImportError):  # Not installed; MLflow raises an error if it is needed.
            importlib.import_module(module)


def is_local(uri: str) -> bool:
    """Returns True if a URI names a local directory, which need not exist, so that nothing is fetched."""
    scheme = re.match(r"^([A-Za-z][A-Za-z0-9+.-]*):", uri)
    return scheme is None or scheme[1].lower() == "file" or Path(uri).expanduser().exists()


def local_directory(uri: str) -> Path | None:
    """Returns the directory that a path or a `file:` URI names; None for a URI of another scheme.

    A `file:` URI may be percent-encoded or not; the path that exists is returned.

    Raises:
        StartError: The directory does not exist.

    """
    if not is_local(uri):
        return None
    paths = [Path(uri).expanduser()]
    if re.match(r"^file:", uri, re.IGNORECASE) and not paths[0].exists():
        path = urlsplit(uri, allow_fragments=False).path
        paths = [Path(unquote(path)), Path(path)]
    directory = next((path for path in paths if path.exists()), None)
    if directory is None:
        tried = " or ".join(dict.fromkeys(str(path.absolute()) for path in paths))
        meant = f" at {tried}" if tried != uri else ""
        raise StartError(f"no model at {uri}: there is no such directory{meant} ({MODEL_URI_HINT})")
    return directory


def check_registry(uri: str) -> None:
    """Refuses a URI that only a server can resolve if no server is set.

    Otherwise MLflow would create an empty database in the working directory, and find no model in it.

    Raises:
        StartError: The URI names a registered model or a run, and no server is set.

    """
    if not uri.startswith(("models:", "runs:")):
        return
    if (store := internals.default_store()) is not None and not store.exists():
        raise StartError(
            f"cannot fetch the model {uri}: MLFLOW_TRACKING_URI is not set, and the default {store} does not exist. "
            "Set MLFLOW_TRACKING_URI to the MLflow server that has the model, such as http://mlflow.example:5000"
        )


def _reason(uri: str, error: BaseException) -> str:
    scheme, reason = uri.partition(":")[0].lower(), one_line(error).rstrip(".")
    if scheme in ("http", "https"):
        return (
            f"{reason}. If this is an MLflow server, it goes into MLFLOW_TRACKING_URI, and the model is named as in "
            "models:/name/1"
        )
    schemes = list(filter(None, get_registered_artifact_repositories()))
    if scheme not in schemes:
        near = difflib.get_close_matches(scheme, schemes, 1)
        meant = f". Did you mean {near[0]}:{uri.partition(':')[2]}?" if near else f", but {', '.join(sorted(schemes))}"
        return f"MLflow knows no scheme {scheme}:{meant}"
    if scheme not in ("models", "runs"):
        return reason
    reason = f"{reason}. The registry in use is {_registry(uri)}"
    if not internals.is_tracking_uri_set():
        reason += ", because MLFLOW_TRACKING_URI is not set"
    hint = _hint(uri) if scheme == "models" and isinstance(error, MlflowException) else ""
    return f"{reason}.{hint}"


def _registry(uri: str) -> str:
    """Returns the server or database that stores the location of a registered model or a run."""
    return mlflow.get_registry_uri() if uri.startswith("models:") else mlflow.get_tracking_uri()


def _hint(uri: str) -> str:
    """Returns advice on the form of the URI, and the models of the registry; empty if there is no advice."""
    segments = re.split(r"[/@]", uri.removeprefix("models:").strip("/"))
    name = segments[0]
    if re.fullmatch(r"m-[0-9a-f]{32}", "/".join(segments)):  # The id of a logged model; MLflow's message suffices.
        return ""
    try:
        return _advice_on_form(uri, segments) + _available_models(name)
    except MlflowException:
        return _advice_on_form(uri, segments)


def _advice_on_form(uri: str, segments: list[str]) -> str:
    name, count = segments[0], len(segments)
    if not name:
        return " Write models:/name/1 or models:/name@alias."
    if count == 1:
        return f" {uri} has no version: write models:/{name}/1 or models:/{name}@alias."
    if count > 2:  # noqa: PLR2004 - a name and a version
        return f" {uri} has more than a name and a version: write models:/{name}/{segments[1]}."
    return ""


def _available_models(name: str) -> str:
    versions, aliases = internals.versions_of(name) if name else ([], {})
    if versions:
        newest = sorted(versions, key=int, reverse=True)[:MAX_LISTED]
        named = ", ".join(f"{alias} (version {version})" for alias, version in sorted(aliases.items()))
        with_aliases = f"the aliases {named}" if named else "no alias"
        return f" {name} has the versions {', '.join(newest)} and {with_aliases}."
    names = internals.registered_names()
    if name in names:
        return f" {name} is registered, but has no version yet."
    near = difflib.get_close_matches(name, names, MAX_LISTED) or sorted(names)[:MAX_LISTED]
    lacks = f"no model {name}, but" if name else "the models"
    if not near:
        return " It has no models. MLflow's log_model puts a model there only with registered_model_name."
    return f" It has {lacks} {', '.join(near)}."
