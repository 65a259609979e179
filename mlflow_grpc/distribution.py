"""The server as an installed distribution: where it came from, and which of its extras are there.

Rule of this module: it is about this installation. `_mlflow_grpc_protocol.install_sources` has the form of the advice.
"""

import importlib.metadata

from _mlflow_grpc_protocol.install_sources import CLIENT, SERVER, install_argument, source_of
from packaging.requirements import Requirement
from packaging.version import Version

__all__ = ["CLIENT", "SERVER", "install_source", "installed_extras", "protobuf_problem", "source_of"]

OF_GRPC = ("grpcio-health-checking", "grpcio-reflection", "grpcio-status")
"""Distributions with messages that protobuf has generated."""


def install_source(extra: str = "") -> str:
    """Returns the argument after `pip install` that installs this server again, quoted for a shell."""
    return install_argument(SERVER, extra)


def installed_extras() -> tuple[str, ...]:
    """Returns the server's extras whose requirements are all installed here, in alphabetical order."""
    distribution = importlib.metadata.distribution(SERVER)
    requirements = [Requirement(text) for text in distribution.requires or []]
    return tuple(
        extra
        for extra in sorted(distribution.metadata.get_all("Provides-Extra") or [])
        if all(_is_installed(item.name) for item in requirements if _belongs_to(item, extra))
    )


def protobuf_problem() -> str:
    """Returns why gRPC's own messages cannot be used with the installed protobuf, and what to do; empty if they can.

    Their modules raise if protobuf is older than the one that generated them.
    """
    installed = importlib.metadata.version("protobuf")
    for name in OF_GRPC:
        for requirement in map(Requirement, importlib.metadata.requires(name) or []):
            lowest = [item.version for item in requirement.specifier if item.operator == ">="]
            if requirement.name == "protobuf" and any(Version(installed) < Version(bound) for bound in lowest):
                advice = f"pip install '{requirement}', and install that package in an environment of its own"
                replaced = f"protobuf {installed} is installed, and {name} needs {requirement}"
                return f"{replaced}. Another package has replaced it, as tritonclient does: {advice}"
    return ""


def _belongs_to(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
