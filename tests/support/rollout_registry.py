"""A registry with versions of a model that answer their number, and with versions that must not be served.

It is made in a process of its own, as in `tests/support/registry.py`. Versions are registered by their directories, which
takes a fraction of the time of `log_model`.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, Schema

NAME = "churn"

GOOD = ("1", "2", "3")
"""Versions with the same signature, each of which answers its number."""

OTHER_SIGNATURE, MISSING_PACKAGE, FAILS_ON_EXAMPLE, BROKEN_PICKLE = "4", "5", "6", "7"
"""Versions that must not be served."""

WIDER, LARGE = "8", ("9", "10", "11")
"""A version with one more column, which is optional; versions with much memory."""

OWN = "own"
"""Model with code of its own: versions 1 and 2 have the same code, and later ones have other code."""

OWN_OTHER, OWN_FAILS, OWN_OTHER_SIGNATURE, OWN_DIES = "3", "4", "5", "6"
"""Versions of it: one that is good, and three that must not be served. The last one ends its process."""

BALLAST = 8 * 2**20
"""Size of a large version in bytes."""


class Answering(PythonModel):
    """Answers its number for each row."""

    def __init__(self, number: int, *, fails: bool = False, ballast: int = 0) -> None:
        self.number, self.fails = number, fails
        self.ballast = np.random.default_rng(number).bytes(ballast)
        self.itself = self  # A cycle, which only the garbage collector frees.

    def predict(self, context, model_input, params=None):
        if self.fails:
            raise ValueError(f"version {self.number} fails")
        return np.full(len(model_input), self.number)


def signature(*columns: ColSpec) -> ModelSignature:
    return ModelSignature(Schema(list(columns)), Schema([ColSpec("long")]))


A, B, OPTIONAL = ColSpec("double", "a"), ColSpec("double", "b"), ColSpec("double", "aa", required=False)


def main() -> None:
    """Creates the registry; the arguments are the URI of the database and the directory of the models."""
    warnings.simplefilter("ignore")
    uri, folder = sys.argv[1], Path(sys.argv[2])
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    for name in (NAME, OWN):
        client.create_registered_model(name)

    def register(name: str, model: Any, columns: tuple[ColSpec, ...] = (A,), **more: Any) -> Path:
        number = len(client.search_model_versions(f"name='{name}'")) + 1
        directory = folder / f"{name}-{number}"
        example = None if more.pop("no_example", False) else pd.DataFrame([{column.name: 1.0 for column in columns}])
        more = {"pip_requirements": ["mlflow"], "signature": signature(*columns), "input_example": example, **more}
        mlflow.pyfunc.save_model(directory, python_model=model, **more)
        client.create_model_version(name, str(directory))
        return directory

    for version in GOOD:
        register(NAME, Answering(int(version)))
    register(NAME, Answering(4), (A, B), no_example=True)
    register(NAME, Answering(5), no_example=True, pip_requirements=["mlflow", "package-that-is-not-installed"])
    # MLflow would run the example while it saves the model.
    directory = register(NAME, Answering(6))
    mlflow.pyfunc.save_model(folder / "fails", python_model=Answering(6, fails=True), pip_requirements=["mlflow"])
    (folder / "fails" / "python_model.pkl").replace(directory / "python_model.pkl")
    (register(NAME, Answering(7), no_example=True) / "python_model.pkl").write_bytes(b"no pickle")
    register(NAME, Answering(8), (A, OPTIONAL), no_example=True)
    for version in LARGE:
        register(NAME, Answering(int(version), ballast=BALLAST), no_example=True)
    broken = {
        OWN_FAILS: "raise RuntimeError('the helper of version 4 fails')\n",
        OWN_DIES: "import os\nos._exit(7)\n",
    }
    for number, factor in enumerate((1, 1, 1000, 10, 100, 10), 1):
        code = f"FACTOR = {factor}\n"
        package = folder / f"code-{number}" / "helper_of_own"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(code)
        (package / "late.py").write_text("LATE = 1\n")
        model = folder / f"own-{number}.py"
        model.write_text(
            "import mlflow, numpy as np\n"
            "from helper_of_own import FACTOR\n"
            "class Own(mlflow.pyfunc.PythonModel):\n"
            "    def predict(self, context, model_input, params=None):\n"
            "        from helper_of_own.late import LATE\n"
            f"        return np.full(len(model_input), {number} * FACTOR * LATE)\n"
            "mlflow.models.set_model(Own())\n"
        )
        sys.path.insert(0, str(package.parent))  # MLflow runs the file while it saves the model.
        columns = (A, B) if str(number) == OWN_OTHER_SIGNATURE else (A,)
        directory = register(OWN, str(model), columns, no_example=True, code_paths=[str(package)])
        if str(number) in broken:
            (directory / "code" / package.name / "__init__.py").write_text(broken[str(number)])
        sys.path.remove(str(package.parent))
        for module in [module for module in sys.modules if module.startswith("helper_of_own")]:
            del sys.modules[module]
    client.set_registered_model_alias(NAME, "champion", "1")
    client.set_registered_model_alias(OWN, "champion", "1")
