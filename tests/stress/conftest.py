"""Models for load, and the resources of a server's process."""

import gc
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsRegressor

ROWS = 10_000

SLOW = """
import time
import mlflow
from mlflow.pyfunc.model import PythonModel

class Slow(PythonModel):
    def predict(self, context, model_input, params=None):
        time.sleep(0.02)
        return model_input

mlflow.models.set_model(Slow())
"""


HOLDING = SLOW.replace("import time\n", "import time\n\nSTEPS = 200_000\n").replace(
    "time.sleep(0.02)", "sum(number % 7 for number in range(STEPS))"
)


@pytest.fixture(autouse=True)
def even_load() -> Iterator[None]:
    """Keeps the load even, because a full garbage collection of the tests' modules would pause it for a third of a
    second and send the missed calls all at once."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def identity(tmp_path_factory):
    """A batched scikit-learn model that answers `id * 3` for the row with this id."""
    path = tmp_path_factory.mktemp("identity") / "model"
    ids = pd.DataFrame({"id": np.arange(ROWS, dtype=float), "other": 0.0})
    model = KNeighborsRegressor(1).fit(ids, ids["id"] * 3)
    signature = mlflow.models.infer_signature(ids, model.predict(ids[:2]))
    mlflow.sklearn.save_model(
        model, path, signature=signature, input_example=ids[:4], pip_requirements=[], serialization_format="pickle"
    )
    return path


@pytest.fixture(scope="session")
def slow(tmp_path_factory):
    """A model that takes 20 ms and releases the interpreter meanwhile."""
    return saved(tmp_path_factory.mktemp("slow"), SLOW)


@pytest.fixture(scope="session")
def holding(tmp_path_factory):
    """A model that computes in Python for 20 ms without releasing the interpreter."""
    return saved(tmp_path_factory.mktemp("holding"), HOLDING)


def saved(directory: Path, code: str) -> Path:
    (directory / "code.py").write_text(code)
    mlflow.pyfunc.save_model(directory / "model", python_model=directory / "code.py", pip_requirements=[])
    return directory / "model"
