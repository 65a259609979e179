"""Columns of predictions in a real local Spark (make spark)."""

import os
import shutil
import signal
import subprocess
import sys

import mlflow
import pandas as pd
import pytest
from mlflow_grpc_client import PredictError

from tests.support.bulk import BATCH_CALL, COLUMNS, Fleet, features, in_background, lines

pytestmark = [
    pytest.mark.spark,
    pytest.mark.alone,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # Spark's own, about pandas and open sockets.
    pytest.mark.skipif(not shutil.which("java"), reason="needs Java, on Debian: apt-get install default-jre-headless"),
]

ROWS = 1_000_000
WORKERS = 4


@pytest.fixture(scope="module")
def spark():
    sql = pytest.importorskip("pyspark.sql")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    options = {
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.session.timeZone": "Asia/Tokyo",
        "spark.log.level": "OFF",
    }
    session = sql.SparkSession.builder.master(f"local[{WORKERS}]").config(map=options).getOrCreate()
    yield session
    session.stop()


@pytest.fixture
def predict_udf(spark):
    from mlflow_grpc_client.spark import predict_udf

    return predict_udf


def rows(spark, count, partitions=WORKERS):
    """The rows of `features` in Spark, with their numbers."""
    from pyspark.sql.functions import col, when

    ids = col("id")
    columns = [
        when(ids % 7 != index, (ids * (index + 3)) % 1000 / 1000).alias(name) for index, name in enumerate(COLUMNS)
    ]
    return spark.range(0, count, 1, partitions).select("id", *columns)


def test_a_million_rows(spark, predict_udf, config):
    """A million rows keep their number and order, and have the answers of spark_udf, while one of two servers restarts."""
    from pyspark.sql.functions import struct

    frame = rows(spark, ROWS, 8)
    in_process = mlflow.pyfunc.spark_udf(spark, str(config.parent / "trees"), "long", env_manager="local")
    expected = frame.select("id", in_process(struct(*COLUMNS)).alias("prediction")).toPandas()
    with Fleet(config, 2) as fleet:
        predict = predict_udf(fleet.address, "trees")
        job = in_background(frame.withColumn("prediction", predict(struct(*COLUMNS))).toPandas)
        fleet.restart_during(job, signal.SIGTERM, after_calls=5)
        answers = job.result(500)
        assert sum(1 for _ in lines(fleet.servers[1], "trees_predict_batch")) >= ROWS / 10_000 / 4
    assert answers["id"].tolist() == list(range(ROWS))
    pd.testing.assert_frame_equal(answers[COLUMNS], features(answers["id"]))
    assert answers["a"].isna().sum() == len(range(0, ROWS, 7))
    pd.testing.assert_frame_equal(answers[["id", "prediction"]], expected)


def test_the_whole_fleet_restarts(spark, predict_udf, config):
    """A job waits for the only server, which was killed with calls in flight, and goes on when it is back."""
    with Fleet(config, 1) as fleet:
        predict = predict_udf(fleet.address, "running", rows_per_call=100)
        frame = rows(spark, 20_000).withColumn("prediction", predict())
        job = in_background(frame.toPandas)
        fleet.restart_during(job, signal.SIGKILL, after_calls=5)
        answers = job.result(500)
        fleet.servers[0].wait_for(BATCH_CALL)
    assert answers["id"].tolist() == list(range(20_000))
    assert answers["prediction"].between(1, WORKERS).all()


def test_an_overloaded_server(spark, predict_udf, config):
    """Calls that an overloaded server refuses are repeated until all rows have their answers."""
    with Fleet(config, 1, "--threads", "1", "--queue-calls", "1", "--log-level", "debug") as fleet:
        predict = predict_udf(fleet.address, "running", rows_per_call=100)
        answers = rows(spark, 8_000).withColumn("prediction", predict()).toPandas()
        assert any(lines(fleet.servers[0], "RESOURCE_EXHAUSTED"))
    assert answers["prediction"].tolist() == [1] * 8_000


@pytest.mark.parametrize(("limit", "most"), [(1, {1}), (2, {1, 2})])
def test_calls_in_flight(spark, predict_udf, config, limit, most):
    """All tasks of an executor together have no more calls in flight than its limit, and as many as that."""
    with Fleet(config, 1, "--threads", "8", "--batching", "off") as fleet:
        predict = predict_udf(fleet.address, "running", rows_per_call=100, calls_per_executor=limit)
        answers = rows(spark, 8_000).withColumn("prediction", predict()).toPandas()
    assert set(answers["prediction"]) <= most
    assert answers["prediction"].max() == limit


def test_several_outputs(spark, predict_udf, fleet, config):
    """Several outputs are a struct with the types and values of spark_udf, and with nulls."""
    frame = rows(spark, 100, 1)
    in_process = mlflow.pyfunc.spark_udf(spark, str(config.parent / "several"), env_manager="local")
    columns = frame.select(predict_udf(fleet.address, "several")().alias("x"), in_process(*COLUMNS).alias("y"))
    assert columns.schema["x"].dataType == columns.schema["y"].dataType
    pairs = columns.collect()
    assert len(pairs) == 100
    assert pairs[0]["x"]["text"] is None
    assert pairs[0]["x"]["double"] is None
    for pair in pairs:
        assert pair["x"] == pair["y"].__class__(**{**pair["y"].asDict(), "text": pair["x"]["text"]})
        assert pair["y"]["text"] == str(pair["x"]["text"])  # spark_udf makes a text of a null.


def test_forms_of_the_arguments(spark, predict_udf, fleet, config):
    """A struct may have further fields; columns are in the order of the inputs; no columns are those of the inputs."""
    from pyspark.sql.functions import struct

    frame = rows(spark, 50)
    predict = predict_udf(fleet.address, "trees")
    forms = [predict(struct("id", *COLUMNS)), predict(*COLUMNS), predict(), predict(struct(*reversed(COLUMNS)))]
    answers = frame.select(*(form.alias(str(index)) for index, form in enumerate(forms))).toPandas()
    model = mlflow.pyfunc.load_model(str(config.parent / "trees"))
    for index in range(len(forms)):
        assert answers[str(index)].tolist() == model.predict(features(pd.Series(range(50)))).tolist()


def test_tensors(spark, predict_udf, fleet, config):
    """A column of arrays is the tensor of a model."""
    frame = spark.createDataFrame([([1.0, 2.0, 3.0],), ([4.0, 5.0, 6.0],)], "v array<double>")
    answers = frame.select(predict_udf(fleet.address, "sums")("v").alias("sum")).collect()
    assert [answer["sum"] for answer in answers] == [6.0, 15.0]
    in_process = mlflow.pyfunc.spark_udf(spark, str(config.parent / "sums"), env_manager="local")
    assert frame.select(in_process("v").alias("sum")).collect()[0]["sum"] == [6.0]  # An array of one, as documented.


@pytest.mark.parametrize(
    ("model", "result_type", "expected"),
    [
        ("trees", "string", "0"),
        ("trees", "double", 0.0),
        ("several", "struct<long: string, flag: boolean>", (str(2**40), False)),
    ],
)
def test_result_types(spark, predict_udf, fleet, model, result_type, expected):
    """A result type converts the answers, and selects outputs."""
    frame = rows(spark, 1).select(predict_udf(fleet.address, model, result_type=result_type)().alias("x"))
    (row,) = frame.collect()
    assert (tuple(row["x"]) if isinstance(expected, tuple) else row["x"]) == expected
    assert frame.schema["x"].dataType.simpleString().replace(":", ": ").replace(",", ", ") == result_type


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        ("rose", {}, PredictError, "There are: "),
        ("several", {"result_type": "double"}, TypeError, "the model has the outputs double, long, text, flag, list"),
        ("several", {"result_type": "rose double"}, TypeError, "the model has no output rose; there are: double, "),
        ("trees", {"calls_per_executor": 0}, ValueError, "calls_per_executor is at least 1"),
        ("trees", {"rows_per_call": 0}, ValueError, "rows_per_call is at least 1"),
        ("trees", {"retry_for_s": -1}, ValueError, "retry_for_s is a number of seconds"),
    ],
)
def test_refusals(predict_udf, fleet, model, options, error, message):
    """A model or an option that cannot work is refused before a job starts."""
    with pytest.raises(error, match=message):
        predict_udf(fleet.address, model, **options)


def test_too_many_columns(predict_udf, fleet):
    """More columns than inputs are refused before a job starts."""
    with pytest.raises(TypeError, match="5 columns for the 4 inputs of the model: a, b, c, d"):
        predict_udf(fleet.address, "trees")(*COLUMNS, "id")


def test_answers_that_belong_to_no_row(spark, predict_udf, fleet):
    """A model with another number of answers than rows ends the job, with the reason."""
    with pytest.raises(Exception, match="the model odd gave 1 answers to 5 rows"):
        rows(spark, 5, 1).select(predict_udf(fleet.address, "odd")()).collect()


def test_executors_need_no_mlflow(fleet, config):
    """What an executor imports to call a model contains neither MLflow nor the model's library."""
    code = (
        "import sys, pandas, mlflow_grpc_client.spark; from mlflow_grpc_client._bulk import BulkModel, BulkOptions\n"
        "with BulkModel(BulkOptions(sys.argv[1], 'trees')) as served:\n"
        "    (column,) = served.predict(pandas.DataFrame({name: [0.5] for name in 'abcd'})).values()\n"
        "    print(column.tolist())\n"
        "print({'mlflow', 'sklearn', 'mlflow_grpc'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, fleet.address],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    expected = mlflow.pyfunc.load_model(str(config.parent / "trees")).predict(
        pd.DataFrame([[0.5] * len(COLUMNS)], columns=COLUMNS)
    )
    assert done.stdout == f"{expected.tolist()}\nset()\n"
