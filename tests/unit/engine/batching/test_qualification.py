"""engine/batching/qualification.py and hosting/pyfunc/sklearn_arrays.py: trials of models at load, and which models the
event loop runs itself."""

import itertools
import time
import types
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import DistanceMetric
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.engine import loading, row_runner
from mlflow_grpc.engine.batching import qualification
from mlflow_grpc.payload.fast_json.fast_decoder import RowBlock
from mlflow_grpc.settings import Settings

FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [0.5, -1.0, 2.0, 0.0]})
TARGET = [0, 1, 0, 1]


def distance(left, right):
    return float(np.abs(left - right).sum())


def loaded_of(estimator, frame, directory):
    """Loads an estimator as a server does."""
    mlflow.sklearn.save_model(
        estimator, directory / "m", signature=infer_signature(frame, estimator.predict(frame[:2])),
        input_example=frame[:4], pip_requirements=["scikit-learn"], serialization_format="cloudpickle",
    )  # fmt: skip
    uri = str(directory / "m")
    return loading.load(ModelConfig(uri=uri, endpoint=True), Settings(model_uri=uri, port=0))


def patched(estimator):
    estimator.predict = types.MethodType(type(estimator).predict, estimator)
    return estimator


@pytest.mark.parametrize(
    ("model", "bounded"),
    [
        (make_pipeline(StandardScaler(), LogisticRegression()), True),
        (KNeighborsClassifier(1), True),
        (KNeighborsClassifier(1, metric=distance), False),
        (KNeighborsClassifier(1, metric="pyfunc", metric_params={"func": distance}), False),
        (KNeighborsClassifier(1, metric=DistanceMetric.get_metric("pyfunc", func=distance)), False),
        (KNeighborsClassifier(1, n_jobs=2), False),
        (patched(LogisticRegression()), False),
        (GaussianProcessRegressor(), True),
    ],
)
@pytest.mark.slow
def test_only_pure_scikit_learn_models_are_bounded(model, bounded, tmp_path):
    """A model with foreign functions or other processes does not qualify, because they could block the event loop."""
    loaded = loaded_of(model.fit(FRAME, TARGET), FRAME, tmp_path)
    model_of_mlflow: Any = loaded.model
    assert model_of_mlflow.is_bounded is bounded
    assert loaded.fast_path is not None
    assert bounded or not loaded.fast_path.inline


def test_slow_models_run_in_a_thread(tmp_path):
    """A thousand neighbours among ten thousand rows, for 128 rows, take too long for the event loop."""
    wide = pd.DataFrame(
        np.random.default_rng(0).normal(size=(10_000, 30)), columns=[f"f{index}" for index in range(30)]
    )
    fitted = KNeighborsClassifier(1000, algorithm="brute").fit(wide, wide["f0"] > 0)
    with threadpool_limits(1):
        loaded = loaded_of(fitted, wide, tmp_path)
    assert loaded.fast_path is not None
    assert not loaded.fast_path.inline


@pytest.mark.parametrize("counts", [[5], [1, 4]])
def test_predictions_in_an_array_stay_in_arrays(counts):
    """The codec of typed rows writes an array five times as fast as a list."""
    predictions = np.arange(5)
    parts = row_runner.split(predictions, counts)
    assert [type(part) for part in parts] == [np.ndarray] * len(counts)
    assert np.concatenate(parts).tolist() == predictions.tolist()


def test_a_list_of_outputs_is_not_split_into_rows():
    """`predict_proba` for two targets returns as many arrays as there are rows, and each array has all rows."""
    with pytest.raises(ValueError, match="have no rows"):
        row_runner.split([np.zeros((2, 3)), np.ones((2, 3))], [1, 1])
    assert row_runner.split(["a", "b", "c"], [1, 2]) == [["a"], ["b", "c"]]
    (first, second) = row_runner.split([np.zeros(3), np.ones(3)], [1, 1])
    assert (first[0].tolist(), second[0].tolist()) == ([0.0] * 3, [1.0] * 3)


@pytest.mark.parametrize(("seconds_a_look", "tried"), [(0.001, 64), (1.0, 4)])
def test_a_slow_model_is_tried_with_fewer_rows(seconds_a_look, tried, tmp_path, monkeypatch):
    """A slow model is tried with fewer rows, because the start of the server waits for the trial."""
    clock = itertools.count(0.0, seconds_a_look)
    monkeypatch.setattr(qualification, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    loaded = loaded_of(LogisticRegression().fit(FRAME, TARGET), FRAME, tmp_path)
    assert loaded.batching_reason.startswith(f"of {tried} sample rows")
    assert loaded.batched


def test_the_largest_batch_of_a_slow_model_is_not_tried():
    """The trial of a slow model does not run its largest batch, because 128 rows, three times, would take over a
    minute."""
    ran: list[int] = []

    class Slow:
        is_bounded = True

        def predict(self, members):
            ran.append(len(members))
            time.sleep(2 * qualification.QUICK_S)

    slow: Any = Slow()
    assert not qualification.fits_event_loop(slow, slow, [RowBlock(None, 1)] * 4, 128)
    assert ran == [1, 1, 1]
