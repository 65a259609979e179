"""A model with a lock in its directory, over real gRPC."""

import json

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.contract import messages, mlflow_schema
from mlflow_grpc.contract.lockfile import format as lock_format
from mlflow_grpc.contract.lockfile import io as lock_io
from tests.support.servers import Caller, serving_models
from tests.support.typed import TypedCaller

FRAME = pd.DataFrame({"a": [1.0, 2.0, 5.0], "b": [0.5, -1.0, 7.0], "c": [3.0, 1.0, 1.0]})
TARGET = [1.0, 20.0, 300.0]


@pytest.mark.parametrize("batching", ["on", "off"])
@pytest.mark.slow
def test_columns_in_another_order_than_their_numbers(tmp_path, batching):
    """Plain rows on the fast path reach the model in the order of its columns, not in that of their numbers."""
    contract = mlflow_schema.contract_of(infer_signature(FRAME, np.array(TARGET)).to_dict())
    maker = messages.FileMaker()
    maker.add("m", contract)
    turned = FRAME[["c", "a", "b"]]
    model = LinearRegression().fit(turned, TARGET)
    mlflow.sklearn.save_model(
        model, tmp_path / "m", signature=infer_signature(turned, np.array(TARGET)), pip_requirements=["scikit-learn"]
    )
    lock_io.write(tmp_path / "m" / lock_format.FILE_NAME, lock_format.LockFile(models=maker.locks))
    config = ModelConfig(uri=str(tmp_path / "m"), name="m", batching=batching, endpoint=True)
    with serving_models([(config, None)]) as running, Caller(running.address) as call:
        typed = TypedCaller(call.channel)
        fields = typed.method("m_predict").input_type.fields
        assert {field.name: field.number for field in fields} == {"a": 1, "b": 2, "c": 3}
        for row in FRAME.to_dict("records"):
            (expected,) = json.loads(call(json.dumps({"dataframe_records": [row]})))["predictions"]
            assert typed("m_predict", row).prediction == expected
            assert expected == pytest.approx(model.predict(pd.DataFrame([row])[["c", "a", "b"]])[0])
