"""engine/agreement.py: what agrees, and by how much predictions differ."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlflow_grpc.engine.agreement import Agreement, compare

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("expected", "predicted", "agreement"),
    [
        (np.array([1.0, 2.0]), np.array([1.0, 2.0]), Agreement(True, 0.0)),
        (np.array([1.0, 2.0]), [1.0, 2.5], Agreement(False, 0.5)),
        (np.array([1.0, 2.0]), pd.DataFrame({"y": [1.0, 2.0]}), Agreement(True, 0.0)),
        (pd.Series([3]), np.array([[1]]), Agreement(False, 2.0)),
        (np.array([1e6]), np.array([1e6 + 0.5], np.float64), Agreement(True, 0.5)),
        (np.array([1.0]), np.array([1.0, 1.0]), Agreement(False)),
        (np.array([NAN, 1.0]), np.array([NAN, 1.0]), Agreement(True, 0.0)),
        (np.array([INF]), np.array([INF]), Agreement(True, 0.0)),
        (np.array([INF]), np.array([1.0]), Agreement(False, INF)),
        (np.array([]), np.array([]), Agreement(True)),
        (["a", "b"], np.array(["a", "b"]), Agreement(True)),
        (["a", "b"], ["a", "c"], Agreement(False)),
        ("text", "text", Agreement(True)),
        ({"y": [1.0], "z": ["a"]}, {"z": ["a"], "y": [1.25]}, Agreement(False, 0.25)),
        ({"y": 1.0}, {"z": 1.0}, Agreement(False, 0.0)),
        (None, None, Agreement(True)),
        (
            pd.DataFrame({"label": ["a"], "score": [0.5]}),
            pd.DataFrame({"score": [0.75], "label": ["a"]}),
            Agreement(False, 0.25),
        ),
    ],
)
def test_predictions_are_compared_by_value(expected: Any, predicted: Any, agreement: Agreement):
    """Containers do not count; labels, sizes and numbers do."""
    assert compare(expected, predicted) == agreement


def test_a_number_that_is_missing_on_one_side_is_no_agreement():
    """The difference to NaN is no number, and is not counted."""
    compared = compare(np.array([1.0]), np.array([NAN]))
    assert not compared.agrees
    assert compared.difference != compared.difference
