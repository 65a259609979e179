"""Comparison of a model's requirements with this environment.

Rule of this module: MLflow parses and checks the requirements. This module only decides which of its results count, and
how to install what is missing.
"""

import importlib.util
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from mlflow_grpc.distribution import install_source
from mlflow_grpc.hosting.error_text import one_line
from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.hosting.pyfunc.requirements_files import needs_file, read_lines, requirements_of

FILE = "requirements.txt"

# MLflow loads models that other versions of MLflow have logged, but every model pins the version that logged it. A
# strict check would refuse every model after each release of MLflow.
_MLFLOW_ITSELF = frozenset({"mlflow", "mlflow-skinny", "mlflow-tracing"})


@dataclass(frozen=True, slots=True)
class UnmetRequirement:
    """A requirement of the model that is not installed here, or only in a version that it excludes."""

    requirement: str
    installed: str | None

    def __str__(self) -> str:
        return f"{self.requirement} ({f'{self.installed} is installed' if self.installed else 'not installed'})"


def read_installed_packages() -> None:
    """Reads which modules the installed packages have, half a second of work that MLflow does once in a process.

    It does it before its first check of a requirement. A process that is forked afterwards does not repeat it.
    """
    internals.check_requirement("mlflow")


def unmet_requirements(directory: Path) -> tuple[list[UnmetRequirement], list[str]]:
    """Returns the requirements in the model's requirements.txt that this environment does not meet.

    The second list has an error text for each requirement that cannot be checked, such as one whose marker makes no
    sense. MLflow only warns about those (`mlflow.utils.requirements_utils.warn_dependency_requirement_mismatches`).

    A constraint excludes versions, but does not require its package. A line that names no package (a path, an option,
    a line that cannot be parsed) counts as met, as in MLflow.

    Raises:
        StartError: The file cannot be read.

    """
    file = directory / FILE
    if not file.exists():
        return [], []
    unmet, invalid = [], []
    for requirement, is_constraint in requirements_of(file, directory):
        try:
            mismatch = internals.check_requirement(requirement)
        except Exception as error:  # noqa: BLE001 - MLflow warns about any, too
            invalid.append(f"cannot check the requirement {requirement!r} in {file}: {one_line(error)}")
            continue
        if mismatch is None or canonicalize_name(mismatch.package_name.partition("[")[0]) in _MLFLOW_ITSELF:
            continue
        if is_constraint and mismatch.installed_version is None:
            continue
        unmet.append(UnmetRequirement(requirement, mismatch.installed_version))
    return unmet, invalid


def listed(unmet: Sequence[UnmetRequirement]) -> str:
    """Returns requirements on one line, with the versions that are installed instead."""
    return ", ".join(map(str, unmet))


def install_command(unmet: Sequence[UnmetRequirement], directory: Path) -> str:
    """Returns a shell command that installs requirements into this environment.

    It names the server too, so that pip chooses versions that suit both. If the model's file has options, such as the
    index of a package, pip gets the file.

    Args:
        unmet: The requirements to install.
        directory: The model's directory.

    """
    python = Path(sys.executable)
    shown = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
    installer = (
        f"{shlex.quote(str(shown))} -m pip install"
        if importlib.util.find_spec("pip") is not None
        else f"uv pip install --python {shlex.quote(str(shown))}"
    )
    file = directory / FILE
    if needs_file(read_lines(file)):
        return " ".join([installer, install_source(), "-r", shlex.quote(str(file))])
    return " ".join([installer, install_source(), *(shlex.quote(item.requirement) for item in unmet)])
