"""Check before a build that the model's versions of Python and MLflow are supported by the server."""

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
"""Distributions of MLflow that have the same version."""


def check(carried: "CarriedEnvironment", *, install_mlflow: bool = False) -> None:
    """Refuses a model whose version of Python or MLflow the server does not support.

    Args:
        carried: The model's environment.
        install_mlflow: True if this server's MLflow replaces the model's.

    Raises:
        StartError: The server does not support the Python version, or any MLflow version that the model allows.

    """
    _check_python(carried)
    for requirement in [] if install_mlflow else _mlflow_requirements(carried.requirements):
        ours = _supported_mlflow()
        if not _have_common_version(requirement.specifier, ours):
            raise StartError(
                f"the model at {carried.uri} requires {requirement}, and this server runs with mlflow{ours}: one "
                "environment cannot hold both. Serve it with --install-mlflow, which puts the MLflow of this "
                "environment in place of the model's, or with --env-manager local, or log it again"
            )


def _check_python(carried: "CarriedEnvironment") -> None:
    supported = SpecifierSet(importlib.metadata.metadata(SERVER)["Requires-Python"])
    try:
        fits = supported.contains(Version(carried.python))
    except InvalidVersion:
        raise StartError(
            f"the model at {carried.uri} was logged with Python {carried.python!r}, which is not a version"
        ) from None
    if not fits:
        raise StartError(
            f"the model at {carried.uri} was logged with Python {carried.python}, and this server needs {supported}: "
            "one environment cannot hold both. Serve it with --env-manager local in an environment that has what it "
            "requires, or log it again with a later Python"
        )


def _mlflow_requirements(requirements: Iterable[str]) -> list[Requirement]:
    return [item for item in map(_parse_requirement, requirements) if item and canonicalize_name(item.name) in _MLFLOW]


def _parse_requirement(requirement: str) -> Requirement | None:
    """Returns a requirement that names a package; None for a path, a URL or an option, which only pip can check."""
    try:
        parsed = Requirement(requirement)
    except InvalidRequirement:
        return None
    return parsed if parsed.marker is None or parsed.marker.evaluate() else None


def _supported_mlflow() -> SpecifierSet:
    requirements = map(Requirement, importlib.metadata.requires(SERVER) or [])
    return next(item.specifier for item in requirements if item.name == "mlflow")


def _have_common_version(*specifiers: SpecifierSet) -> bool:
    """Returns True if a version is in all specifiers; tries their bounds and the next versions after these."""
    bounds = [Version(item.version.removesuffix(".*")) for specifier in specifiers for item in specifier]
    following = [Version(".".join(map(str, (*bound.release[:-1], bound.release[-1] + 1)))) for bound in bounds]
    later = [Version(".".join(map(str, (*bound.release, 1)))) for bound in bounds]
    return any(
        all(specifier.contains(version, prereleases=True) for specifier in specifiers)
        for version in (Version("9999"), *bounds, *following, *later)
    )
