"""Search for the Python interpreter of a model's environment.

The version that logged the model comes first, then the latest with the same minor version, because packages are built
for minor versions.
"""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.version import Version

from mlflow_grpc.errors import StartError
from mlflow_grpc.own_loggers import get_logger

logger = get_logger(__name__)

PROBE_LIMIT_S = 30
"""Maximum time in which an interpreter must print its version, in seconds."""

# Debian packages ensurepip separately, and an interpreter without it cannot create environments.
_PROBE = "import ensurepip, sys, venv; print('%d.%d.%d' % sys.version_info[:3])"


def find_uv() -> str:
    """Returns the path of the uv command, from the PATH or from the package in this environment.

    Raises:
        StartError: uv is not installed.

    """
    if path := shutil.which("uv"):
        return path
    if importlib.util.find_spec("uv") is not None:
        from uv import find_uv_bin

        return str(find_uv_bin())
    raise StartError(
        "--env-manager uv needs uv, which is neither on the PATH nor installed beside this server: `pip install uv`, "
        "or take --env-manager virtualenv"
    )


def find(version: str, *, uv: str | None = None) -> Path | None:
    """Returns an interpreter of a version, or of the same minor version; None if this machine has none.

    Args:
        version: A version such as 3.11.7.
        uv: Path of the uv command, whose interpreters are candidates too. None if there is no uv.

    """
    minor = minor_of(version)
    versions = {
        path: Version(output) for path in _candidates(minor, uv) if (output := _output([path, "-I", "-c", _PROBE]))
    }
    suitable = {path: here for path, here in versions.items() if minor_of(str(here)) == minor}
    if not suitable:
        return None
    best = max(suitable, key=lambda path: (suitable[path] == Version(version), suitable[path]))
    if suitable[best] != Version(version):
        logger.info("there is no Python %s here: taking %s (%s)", version, suitable[best], best)
    return Path(best)


def minor_of(version: str) -> str:
    """Returns the first two numbers of a version, such as 3.11."""
    return ".".join(version.split(".")[:2])


def missing(version: str) -> StartError:
    """Returns the error for a missing interpreter, with instructions to install one."""
    minor = minor_of(version)
    return StartError(
        f"the model was logged with Python {version}, and no Python {minor} with venv and ensurepip was found "
        f"(searched: this server's own, python{minor} on the PATH and those of pyenv): install one, for example with "
        f"`pyenv install {version}` or `uv python install {minor}`, or serve the model with --env-manager local"
    )


def _candidates(minor: str, uv: str | None) -> Iterator[str]:
    yield sys.executable
    if path := shutil.which(f"python{minor}"):
        yield path
    pyenv = shutil.which("pyenv")
    root = _output([pyenv, "root"]) if pyenv else ""
    for directory in sorted(Path(root or Path.home() / ".pyenv").glob(f"versions/{minor}.*")):
        yield str(directory / "bin" / "python")
    if uv and (path := _output([uv, "python", "find", "--no-project", "--no-python-downloads", "--system", minor])):
        yield path


def _output(command: list[str]) -> str:
    """Returns the output of a command; empty if it fails."""
    try:
        completed = subprocess.run(  # noqa: S603 - interpreters, pyenv and uv, by their full paths
            command, capture_output=True, text=True, check=True, timeout=PROBE_LIMIT_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return completed.stdout.strip()
