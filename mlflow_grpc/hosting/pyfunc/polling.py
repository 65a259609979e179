"""Queries of a registry for the version that a tracked model should have.

MLflow's own client waits up to 120 s for an answer and tries seven times more. Both numbers are settings of the
process, which also apply to downloads and to the models' own queries. So a registry behind HTTP gets requests of this
module, by MLflow's documented REST API, with a short limit and without a second try: the next query follows anyway.

Rule of this module: it queries, and decides nothing.
"""

import re
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.utils.models import get_model_name_and_version
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request, verify_rest_response

from mlflow_grpc.hosting.error_text import one_line
from mlflow_grpc.naming import without_secrets

REST = "/api/2.0/mlflow/registered-models"
"""Prefix of the paths in https://mlflow.org/docs/latest/rest-api.html."""

READY = "READY"
"""Status of a version whose files are complete."""

GONE_CODES = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})
"""Error codes for a model or alias that does not exist; the second is that of a missing alias."""


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model."""

    name: str
    version: str
    status: str = READY
    """Status in the registry; its files are complete if it is READY."""


class QueryFailed(Exception):
    """The registry did not name a version; the text is one line without secrets."""

    def __init__(self, reason: str, *, is_gone: bool = False) -> None:
        """Takes the reason.

        Args:
            reason: One line.
            is_gone: True if the registry answered that there is no such model or alias.

        """
        super().__init__(without_secrets(reason))
        self.is_gone = is_gone


def current_version(uri: str, limit_s: float) -> RegisteredVersion:
    """Returns the version that a URI means now.

    Args:
        uri: URI of a registered model with an alias, `latest` or a stage.
        limit_s: Time limit in seconds for a connection, and for each part of an answer. It applies to registries behind
            HTTP.

    Raises:
        QueryFailed: The registry did not answer, or has no such model or alias.

    """
    try:
        registry = mlflow.get_registry_uri()
        if re.match(r"https?://", registry):
            return _newest(_query_rest(registry, uri, limit_s))
        return _query_client(uri)
    except QueryFailed:
        raise
    except MlflowException as error:
        raise QueryFailed(one_line(error), is_gone=error.error_code in GONE_CODES) from error
    except Exception as error:  # A database driver may raise anything.
        raise QueryFailed(one_line(error)) from error


def _query_client(uri: str) -> RegisteredVersion:
    client = mlflow.MlflowClient()
    name, alias = _alias_of(uri)
    if alias:
        version = client.get_model_version_by_alias(name, alias)
    else:
        version = client.get_model_version(*get_model_name_and_version(client, uri))
    return RegisteredVersion(version.name, str(version.version), version.status)


def _query_rest(registry: str, uri: str, limit_s: float) -> list[dict[str, Any]]:
    name, alias = _alias_of(uri)
    if alias:
        path, parameters = f"{REST}/alias", {"name": name, "alias": alias}
    else:
        stage = uri.rpartition("/")[2]
        path, parameters = f"{REST}/get-latest-versions", {"name": uri.removeprefix("models:/").rpartition("/")[0]}
        parameters |= {} if stage.lower() == "latest" else {"stages": stage}
    response = http_request(
        get_default_host_creds(registry), path, "GET", max_retries=0, timeout=limit_s, params=parameters
    )
    answer = verify_rest_response(response, path).json()
    return [answer.get("model_version")] if alias else answer.get("model_versions", [])


def _alias_of(uri: str) -> tuple[str, str]:
    """Returns the name and the alias of a URI; the alias is empty if there is none."""
    name, _, alias = uri.removeprefix("models:/").partition("@")
    return name, alias


def _newest(versions: list[dict[str, Any]]) -> RegisteredVersion:
    if not versions:
        raise QueryFailed("the registry has no version of the model there", is_gone=True)
    try:
        newest = max(versions, key=lambda version: int(version["version"]))
        return RegisteredVersion(newest["name"], str(newest["version"]), newest.get("status", READY))
    except (LookupError, TypeError, ValueError):
        raise QueryFailed("its answer names no version, so it is not that of a registry") from None
