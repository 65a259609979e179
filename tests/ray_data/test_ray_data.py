"""Predictions in Ray Datasets, with a real local Ray (make ray-data)."""

import os
import signal

import mlflow
import numpy as np
import pandas as pd
import pytest

from tests.support.bulk import BATCH_CALL, COLUMNS, Fleet, features, in_background, lines
from tests.support.servers import ROOT

pytestmark = [
    pytest.mark.ray_data,
    pytest.mark.alone,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # Ray's own.
]

ROWS = 1_000_000
ACTORS = 2


@pytest.fixture(scope="module")
def data():
    """The module `ray.data`, with a cluster of this machine."""
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0", RAY_ENABLE_UV_RUN_RUNTIME_ENV="0")
    ray = pytest.importorskip("ray")
    datasets = pytest.importorskip("ray.data")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "client"), os.environ.get("PYTHONPATH", "")])
    ray.init(
        num_cpus=ACTORS,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    context = datasets.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    yield datasets
    ray.shutdown()


def with_predictions(dataset, *arguments, **options):
    from mlflow_grpc_client.ray_data import Predictor

    options = {"batch_size": 10_000, "concurrency": ACTORS, "num_cpus": 0.5, **options}
    return dataset.map_batches(Predictor, fn_constructor_args=arguments, **options)


def add_features(batch):
    return {**batch, **{name: values.to_numpy() for name, values in features(pd.Series(batch["id"])).items()}}


def test_a_million_rows(data, config):
    """A million rows keep their number and order, and have the answers of the model, while one of two servers restarts."""
    dataset = data.range(ROWS, override_num_blocks=20).map_batches(add_features, batch_size=10_000)
    with Fleet(config, 2) as fleet:
        job = in_background(with_predictions(dataset, fleet.address, "trees").to_pandas)
        fleet.restart_during(job, signal.SIGTERM, after_calls=5)
        answers = job.result(500)
        assert sum(1 for _ in lines(fleet.servers[1], "trees_predict_batch")) >= ROWS / 10_000 / 4
    assert answers["id"].tolist() == list(range(ROWS))
    frame = features(answers["id"].astype(int))
    np.testing.assert_array_equal(answers[COLUMNS].to_numpy(float), frame.to_numpy())
    assert frame["a"].isna().sum() == len(range(0, ROWS, 7))
    expected = mlflow.pyfunc.load_model(str(config.parent / "trees")).predict(frame)
    np.testing.assert_array_equal(answers["prediction"], expected)


def test_the_whole_fleet_restarts(data, config):
    """A job waits for the only server, which was killed with calls in flight, and goes on when it is back."""
    dataset = data.range(20_000).map_batches(add_features)
    with Fleet(config, 1) as fleet:
        from mlflow_grpc_client.ray_data import Predictor

        predicted = dataset.map_batches(
            Predictor,
            fn_constructor_args=(fleet.address, "running"),
            fn_constructor_kwargs={"rows_per_call": 100},
            concurrency=ACTORS,
            num_cpus=0.5,
        )
        job = in_background(predicted.to_pandas)
        fleet.restart_during(job, signal.SIGKILL, after_calls=5)
        answers = job.result(500)
        fleet.servers[0].wait_for(BATCH_CALL)
    assert answers["id"].tolist() == list(range(20_000))
    assert answers["prediction"].between(1, ACTORS).all()


@pytest.mark.parametrize("batch_format", ["numpy", "pandas"])
def test_several_outputs(data, fleet, config, batch_format):
    """Several outputs are a column each, with nulls; columns that are not inputs stay."""
    dataset = data.range(100, override_num_blocks=1).map_batches(add_features)
    answers = with_predictions(dataset, fleet.address, "several", batch_format=batch_format).take_all()
    frame = features(pd.Series(range(100)))
    expected = mlflow.pyfunc.load_model(str(config.parent / "several")).predict(frame).to_dict("records")
    assert [row["id"] for row in answers] == list(range(100))
    for row, outputs in zip(answers, expected, strict=True):
        assert set(row) == {"id", *COLUMNS, *outputs}
        assert row["long"] == outputs["long"]
        assert row["text"] == outputs["text"] or (row["text"] is None and pd.isna(outputs["text"]))
        assert row["double"] == outputs["double"] or (pd.isna(row["double"]) and pd.isna(outputs["double"]))
        assert list(row["list"]) == outputs["list"]


@pytest.mark.parametrize("batch_format", ["numpy", "pandas"])
def test_nulls(data, fleet, config, batch_format):
    """A null of a dataset is a missing value of the model."""
    rows = [{"id": index, "a": index / 4 if index % 2 else None, "b": 0.5, "c": 0.5, "d": 0.5} for index in range(8)]
    answers = with_predictions(data.from_items(rows), fleet.address, "trees", batch_format=batch_format).take_all()
    frame = pd.DataFrame(rows)[COLUMNS].astype(float)
    expected = mlflow.pyfunc.load_model(str(config.parent / "trees")).predict(frame).tolist()
    assert [row["prediction"] for row in sorted(answers, key=lambda row: row["id"])] == expected


def test_tensors(data, fleet):
    """A column of arrays is the tensor of a model."""
    dataset = data.from_numpy(np.arange(6.0).reshape(2, 3))
    rows = with_predictions(dataset, fleet.address, "sums").take_all()
    assert [row["prediction"] for row in rows] == [3.0, 12.0]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("rose", {}, "There are: "),
        ("odd", {}, "the model odd gave 1 answers to 5 rows"),
        ("sums", {}, "select the inputs"),
        ("trees", {"batch_format": "pyarrow"}, "leave batch_format out"),
        ("trees", {"fn_constructor_kwargs": {"output": "id"}}, "already has a column 'id'"),
        ("trees", {"fn_constructor_kwargs": {"rows_per_call": 0}}, "rows_per_call is at least 1"),
    ],
)
def test_refusals(data, fleet, model, options, message):
    """What cannot work ends the job, with the reason."""
    dataset = data.range(5, override_num_blocks=1).map_batches(add_features)
    with pytest.raises(Exception, match=message):
        with_predictions(dataset, fleet.address, model, **options).take_all()
