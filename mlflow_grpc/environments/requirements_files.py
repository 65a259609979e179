"""The two requirements files by which a model's environment is installed."""

from collections.abc import Sequence
from pathlib import Path

BUILD = "mlflow-grpc-build-requirements.txt"
"""What is installed first: pip, setuptools, wheel."""

MODEL = "mlflow-grpc-model-requirements.txt"
"""What the model requires; it names files of the model's directory, in which it has to be."""


def write_requirements(directory: Path, build_dependencies: Sequence[str], dependencies: Sequence[str]) -> None:
    """Writes both files into a directory."""
    for name, lines in ((BUILD, build_dependencies), (MODEL, dependencies)):
        (directory / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
