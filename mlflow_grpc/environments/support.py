"""Whether an environment can hold a model and the server, as far as versions tell, before anything is built."""

import importlib.metadata
from collections.abc import Iterable
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from mlflow_grpc.distribution import SERVER
from mlflow_grpc.errors import StartError

if TYPE_CHECKING:  # It imports MLflow.
    from mlflow_grpc.hosting.pyfunc.carried_environment import CarriedEnvironment

_MLFLOW = frozenset({"mlflow", "mlflow-skinny"})
"""The distributions of MLflow whose versions go together."""


def check(carried: "CarriedEnvironment", *, install_mlflow: bool = False) -> None:
    """Refuses a model whose Python or MLflow the server cannot run with.

    Args:
        carried: The model's environment.
        install_mlflow: Whether this server's MLflow takes the place of the model's.

    Raises:
        StartError: The server does not run with that Python, or with no MLflow that the model takes.

    """
    _check_python(carried)
    for requirement in [] if install_mlflow else _mlflow_requirements(carried.requirements):
        ours = _supported_mlflow()
        if not _have_common_version(requirement.specifier, ours):
            raise StartError(
                f"the model at {carried.uri} requires {requirement}, and this server runs with mlflow{ours}: one "
                "environment cannot hold both. Serve it with --install-mlflow, which puts the MLflow of this "
                "environment in the place of the model's, or with --env-manager local, or log it anew"
            )


def _check_python(carried: "CarriedEnvironment") -> None:
    supported = SpecifierSet(importlib.metadata.metadata(SERVER)["Requires-Python"])
    try:
        fits = supported.contains(Version(carried.python))
    except InvalidVersion:
        raise StartError(
            f"the model at {carried.uri} was logged with Python {carried.python!r}, which is no version"
        ) from None
    if not fits:
        raise StartError(
            f"the model at {carried.uri} was logged with Python {carried.python}, and this server needs {supported}: "
            "one environment cannot hold both. Serve it with --env-manager local in an environment that has what it "
            "requires, or log it anew with a later Python"
        )


def _mlflow_requirements(requirements: Iterable[str]) -> list[Requirement]:
    return [item for item in map(_parsed, requirements) if item and canonicalize_name(item.name) in _MLFLOW]


def _parsed(requirement: str) -> Requirement | None:
    """A requirement that names a package; None for a path, a URL or an option, which pip is to judge."""
    try:
        parsed = Requirement(requirement)
    except InvalidRequirement:
        return None
    return parsed if parsed.marker is None or parsed.marker.evaluate() else None


def _supported_mlflow() -> SpecifierSet:
    requirements = map(Requirement, importlib.metadata.requires(SERVER) or [])
    return next(item.specifier for item in requirements if item.name == "mlflow")


def _have_common_version(*specifiers: SpecifierSet) -> bool:
    """Whether some version is in all of the specifiers: tried with their bounds and the next ones after them."""
    bounds = [Version(item.version.removesuffix(".*")) for specifier in specifiers for item in specifier]
    following = [Version(".".join(map(str, (*bound.release[:-1], bound.release[-1] + 1)))) for bound in bounds]
    later = [Version(".".join(map(str, (*bound.release, 1)))) for bound in bounds]
    return any(
        all(specifier.contains(version, prereleases=True) for specifier in specifiers)
        for version in (Version("9999"), *bounds, *following, *later)
    )
