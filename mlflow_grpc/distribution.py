"""The server as an installed distribution: where it came from, and which of its extras are there.

Rule of this module: it is about this installation. `_mlflow_grpc_protocol.install_sources` has the form of the advice.
"""

import importlib.metadata

from _mlflow_grpc_protocol.install_sources import CLIENT, SERVER, install_argument, source_of
from packaging.requirements import Requirement

__all__ = ["CLIENT", "SERVER", "install_source", "installed_extras", "source_of"]


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


def _belongs_to(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
