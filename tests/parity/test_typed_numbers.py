"""Extreme numbers in one typed record: the model gets them unchanged, on the fast path as on any other."""

import math

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow_grpc_client import Client, PredictError
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from mlflow_grpc.config import ModelConfig
from tests.support.servers import serving_models

TYPES = {
    "doubles": [DataType.double, DataType.double],
    "floats": [DataType.float, DataType.float],
    "mixed": [DataType.double, DataType.long],
}
DTYPES = {DataType.double: np.float64, DataType.float: np.float32, DataType.long: np.int64}
MODELS = {"trees": DecisionTreeClassifier, "linear": LogisticRegression}
NUMBERS = [0.0, -0.0, 1.5, 2.0**63, -(2.0**70), 1e300, 5e-324, math.inf, -math.inf, math.nan]


def frame_of(types, rows):
    columns = zip(("a", "b"), types, zip(*rows, strict=True), strict=True)
    with np.errstate(over="ignore"):
        return pd.DataFrame({name: np.array(cells).astype(DTYPES[data_type]) for name, data_type, cells in columns})


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbers")
    random = np.random.default_rng(0).integers(-9, 9, (60, 2))
    for kind, types in TYPES.items():
        table = frame_of(types, random.tolist())
        signature = ModelSignature(
            Schema([ColSpec(data_type, name) for name, data_type in zip(("a", "b"), types, strict=True)]),
            Schema([ColSpec(DataType.long)]),
        )
        for name, make in MODELS.items():
            model = make().fit(table, (table["a"] + table["b"] > 0).astype(int))
            path = folder / f"{name}_{kind}"
            mlflow.sklearn.save_model(
                model,
                path,
                signature=signature,
                pip_requirements=["scikit-learn"],
                skops_trusted_types=["sklearn.tree._tree.Tree"],
            )
    configs = [ModelConfig(uri=str(path), name=path.name, endpoint=True) for path in sorted(folder.iterdir())]
    with serving_models([(config, None) for config in configs]) as running, Client(running.address) as opened:
        yield folder, opened


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", MODELS)
def test_extreme_numbers(client, name, kind):
    """A record has the prediction that MLflow's model makes for the same table. What the model refuses is an error."""
    folder, opened = client
    model, served = mlflow.pyfunc.load_model(str(folder / f"{name}_{kind}")), opened.model(f"{name}_{kind}")
    refused = set()
    for number in NUMBERS:
        table = frame_of(TYPES[kind], [[number, 3]])
        record = {"a": float(table["a"][0]), "b": 3 if kind == "mixed" else 3.0}
        try:
            expected = model.predict(table).tolist()
        except ValueError:
            refused.add(number)
            with pytest.raises(PredictError):
                served.predict(record)
        else:
            assert [served.predict(record)] == expected, number
    assert {math.inf, -math.inf} <= refused < set(NUMBERS)
