"""The two requirements files that install a model's environment."""

from collections.abc import Sequence
from pathlib import Path

BUILD = "mlflow-grpc-build-requirements.txt"
"""Requirements to install first: pip, setuptools, wheel."""

MODEL = "mlflow-grpc-model-requirements.txt"
"""Requirements of the model; the file must be in the model's directory, because it may name files in it."""


def write_requirements(directory: Path, build_dependencies: Sequence[str], dependencies: Sequence[str]) -> None:
    """Writes both files into a directory."""
    for name, lines in ((BUILD, build_dependencies), (MODEL, dependencies)):
        (directory / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
