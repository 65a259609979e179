"""Repeated starts of a server with several pickled models."""

import json
import os

import mlflow
import numpy as np
import pytest

from tests.support import pickled
from tests.support.servers import Caller, ready_address, start_server

STARTS = int(os.environ.get("STARTS", "1"))


@pytest.mark.deep
@pytest.mark.timeout(60 + 60 * STARTS)
def test_four_pickled_models_start_each_time(tmp_path):
    """Two threads that unpickle scikit-learn models at the same time deadlock in its imports; one thread does not.
    STARTS sets the number of starts: `make starts` makes 50."""
    file = pickled.save(tmp_path)
    expected = {
        name: mlflow.pyfunc.load_model(str(tmp_path / name)).predict(np.array([pickled.ROW])).tolist()
        for name in ("one", "two", "linear", "tree")
    }
    for _ in range(STARTS):
        with start_server("--config", str(file), fresh=True) as process, Caller(ready_address(process)) as call:
            text = json.dumps({"inputs": [pickled.ROW]})
            answers = {name: json.loads(call(text, mlflow_model=name))["predictions"] for name in expected}
            assert answers == expected
