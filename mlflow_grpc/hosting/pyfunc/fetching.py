"""Where an MLflow model is: the version that its URI means, and a local directory with its files.

Rule of this module: it fetches and imports no code of a model, so that several models may be fetched at the same time.
An alias or `latest` is looked up once; the version that it means then is the one that is fetched, served and shown.
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

logger = get_logger(__name__)

WHAT_A_MODEL_IS = "an MLflow model is a directory with an MLmodel file, or a URI such as models:/name/1"

SLOW_S = 10.0
"""After how many seconds without an answer of a registry a line says so."""

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
        return FetchedModel(without_secrets(uri), directory.resolve())
    check_registry(uri)
    try:
        registered = internals.registered_version(uri)
        exact = "models:/{}/{}".format(*registered) if registered else uri
        directory = Path(mlflow.artifacts.download_artifacts(artifact_uri=exact))
        return FetchedModel(without_secrets(uri), directory, registered[1] if registered else "")
    except BaseException as error:
        raise fetch_error(uri, error) from error


def fetch_error(uri: str, error: BaseException) -> StartError:
    """Why a model cannot be fetched, and what to do about it.

    Args:
        uri: Of the model.
        error: What MLflow raised.

    """
    reason = missing_library(error) or _reason(uri, error)
    return StartError(f"cannot fetch the model {uri}: {reason}")


@contextlib.contextmanager
def told_if_slow(uri: str, how_to_end: str = "") -> Iterator[None]:
    """Logs who is being waited for, if fetching takes long: MLflow's HTTP client tries a dead server for minutes.

    Args:
        uri: Of the model.
        how_to_end: What can be done about it; a sentence.

    """
    sent = f"still waiting for {asked(uri)}.{how_to_end and ' '}{how_to_end}"
    words = f"{uri} has not been fetched after {SLOW_S:g} s: {sent}"
    timer = threading.Timer(SLOW_S, logger.warning, ("%s", words))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def asked(uri: str) -> str:
    """Who has a model's files, for an error or a log line, which leave out passwords: a registry, or a storage."""
    return f"the registry {_registry(uri)}" if uri.startswith(("models:", "runs:")) else "its storage"


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
    scheme, reason = uri.partition(":")[0].lower(), one_line(error).rstrip(".")
    if scheme in ("http", "https"):
        return (
            f"{reason}. If this is an MLflow server, it goes into MLFLOW_TRACKING_URI, and the model is named as in "
            "models:/name/1"
        )
    known = [each for each in get_registered_artifact_repositories() if each]
    if scheme not in known:
        near = difflib.get_close_matches(scheme, known, 1)
        meant = f". Did you mean {near[0]}:{uri.partition(':')[2]}?" if near else f", but {', '.join(sorted(known))}"
        return f"MLflow knows no scheme {scheme}:{meant}"
    if scheme not in ("models", "runs"):
        return reason
    reason = f"{reason}. The registry that was asked is {_registry(uri)}"
    if not internals.is_tracking_uri_set():
        reason += ", because MLFLOW_TRACKING_URI is not set"
    hint = _hint(uri) if scheme == "models" and isinstance(error, MlflowException) else ""
    return f"{reason}.{hint}"


def _registry(uri: str) -> str:
    """The server or database that knows where a registered model or a run has its files."""
    return mlflow.get_registry_uri() if uri.startswith("models:") else mlflow.get_tracking_uri()


def _hint(uri: str) -> str:
    """What to write, and what the registry has instead; empty if it does not say."""
    parts = re.split(r"[/@]", uri.removeprefix("models:").strip("/"))
    name = parts[0]
    if re.fullmatch(r"m-[0-9a-f]{32}", "/".join(parts)):  # The id of a logged model; MLflow's message says enough.
        return ""
    try:
        return _what_to_write(uri, parts) + _what_there_is(name)
    except MlflowException:
        return _what_to_write(uri, parts)


def _what_to_write(uri: str, parts: list[str]) -> str:
    name, count = parts[0], len(parts)
    if not name:
        return " Write models:/name/1 or models:/name@alias."
    if count == 1:
        return f" {uri} has no version: write models:/{name}/1 or models:/{name}@alias."
    if count > 2:  # noqa: PLR2004 - a name and a version
        return f" {uri} has more than a name and a version: write models:/{name}/{parts[1]}."
    return ""


def _what_there_is(name: str) -> str:
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
    return f" It has {lacks} {', '.join(near)}." if near else " It has no models."
