"""pyarrow's tables as input and output: `client.model("iris").predict(table)`."""

import socket
import subprocess
import sys

import grpc
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow_grpc_client import PredictError, _tables, _wire
from mlflow_grpc_client.errors import DeadlineExceeded

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.errors import Overloaded
from mlflow_grpc.payload.mlflow_json.codec import ScoringCodec
from tests.support.servers import serving_models
from tests.support.tables import saved

FLOWERS = pa.table(
    {
        "sepal_length_cm": [5.1, 6.7, 5.1],
        "sepal_width_cm": [3.5, 3.0, 3.5],
        "petal_length_cm": [1.4, 5.2, 1.4],
        "petal_width_cm": [0.2, 2.3, 0.2],
    }
)


def predicted(iris, table):
    """The model's answer in Python."""
    answer = iris.model.predict(table.to_pandas(), None)
    return answer.iloc[:, 0].tolist() if isinstance(answer, pd.DataFrame) else list(answer)


def test_a_table_gets_a_table(make_client, iris):
    """The answer is a table with a row for each row, equal to the model's own."""
    answer = make_client(iris.address).model("iris").predict(FLOWERS)
    assert isinstance(answer, pa.Table)
    assert answer.column(0).to_pylist() == predicted(iris, FLOWERS) == ["setosa", "virginica", "setosa"]


def from_the_mean(frame, params=None):
    return (frame["x"] - frame["x"].mean()).to_numpy()


def test_rows_are_predicted_together(make_client, tmp_path_factory):
    """A table that fits into a message is one call of the model, as a DataFrame is, also for more than 4 MB."""
    signature = ModelSignature(Schema([ColSpec(DataType.double, "x")]), Schema([ColSpec(DataType.double, "y")]))
    path = saved(tmp_path_factory, "from_the_mean", from_the_mean, signature)
    numbers = np.arange(700_000.0)
    frame = pd.DataFrame({"x": numbers})
    with serving_models([(ModelConfig(uri=str(path), name="centred", endpoint=True), None)]) as server:
        answer = make_client(server.address).model("centred").predict(pa.table({"x": numbers}))
    assert np.array_equal(answer.column("y").to_numpy(), from_the_mean(frame))


@pytest.mark.parametrize("change", ["batch", "chunks", "no rows", "dictionary"])
def test_forms_of_tables(make_client, iris, change):
    """A record batch, a table in chunks, one without rows and one with dictionaries are tables like any other."""
    table = {
        "batch": FLOWERS.to_batches()[0],
        "chunks": pa.concat_tables([FLOWERS[:1], FLOWERS[1:]]),
        "no rows": FLOWERS[:0],
        "dictionary": FLOWERS.set_column(0, "sepal_length_cm", FLOWERS.column(0).dictionary_encode()),
    }[change]
    answer = make_client(iris.address).model("iris").predict(table)
    assert answer.column(0).to_pylist() == predicted(iris, FLOWERS)[: table.num_rows]


def test_tables_above_the_limit_are_sent_in_batches(make_client, iris, attempts):
    """A table above the limit of a message is one call of as few batches as there can be, each within the limit."""
    rows = np.random.default_rng(0).uniform(0.1, 7, (2_000, 4))
    table = pa.table(dict(zip(FLOWERS.schema.names, rows.T, strict=True)))
    answer = make_client(iris.address, max_message_bytes=10_000).model("").predict(table)
    assert answer.column(0).to_pylist() == predicted(iris, table)
    assert [fields["method"].rpartition("/")[2] for fields in attempts.fields] == ["DoExchange"]
    assert answer.column(0).num_chunks == 7  # 64,000 bytes of numbers.


def test_dictionaries_of_views(make_client, iris):
    """A dictionary of views, as polars makes it of categories, is sent as its texts."""
    values = pa.array(["x" * 20], pa.string_view())
    colours = pa.DictionaryArray.from_arrays(pa.array([0, 0, None], pa.int8()), values)
    with pytest.warns(UserWarning, match="colour"):  # The column has arrived, and the model does not have it.
        answer = make_client(iris.address).model("iris").predict(FLOWERS.append_column("colour", colours))
    assert answer.column(0).to_pylist() == predicted(iris, FLOWERS)


def test_refusals(make_client, iris):
    """A column that does not fit is a PredictError with its name; a dictionary in a list is a TypeError."""
    model = make_client(iris.address).model("iris")
    with pytest.raises(PredictError, match="petal_width_cm has the Arrow type string") as caught:
        model.predict(FLOWERS.set_column(3, "petal_width_cm", [["x", "y", "z"]]))
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PARAMETER_VALUE")
    assert [violation.field for violation in caught.value.violations] == ["petal_width_cm"]
    with pytest.raises(PredictError, match="no such model"):
        make_client(iris.address).model("nobody").predict(FLOWERS)
    lists = pa.array([["a"], ["b"], []], pa.list_(pa.dictionary(pa.int8(), pa.string())))
    with pytest.raises(TypeError, match="x has a dictionary within list"):
        model.predict(FLOWERS.append_column("x", lists))
    with pytest.raises(TypeError, match="not both"):
        model.predict(FLOWERS, petal_width_cm=1.0)


def test_params_are_those_of_the_model(make_client, iris):
    """Params that the model does not have are reported as ignored, as in every call."""
    model = make_client(iris.address).model("iris")
    with pytest.warns(UserWarning, match=r"params\.top_k"):
        answer = model.predict(FLOWERS, params={"top_k": 3})
    assert answer.num_rows == FLOWERS.num_rows


def test_a_server_that_loads_is_called_again(make_client, loading, iris, attempts, fast_retries):
    """UNAVAILABLE is retried until the model is there."""

    def open_then(number):
        if number == 2:
            codec = ScoringCodec(iris.model.metadata, iris.model.loader_module)
            loading.start_task(lambda: loading.host(iris.model, codec))

    attempts.then = open_then
    answer = make_client(loading.address, channel_options={"grpc.enable_retries": 0}).model("").predict(FLOWERS)
    assert answer.column(0).to_pylist() == predicted(iris, FLOWERS)
    assert attempts.statuses[:2] == ["UNAVAILABLE", "UNAVAILABLE"]
    assert attempts.statuses[-1] == "OK"


def test_a_call_that_is_refused_ends_after_its_retries(make_client, loading, attempts, fast_retries):
    """A server that has no model is called five times."""
    with pytest.raises(PredictError) as caught:
        make_client(loading.address).model("").predict(FLOWERS)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert attempts.statuses == ["UNAVAILABLE"] * 5


def test_an_overloaded_server_is_called_again(make_client, iris, monkeypatch, fast_retries):
    """A refusal for want of room is repeated."""
    from mlflow_grpc.engine.engine import Engine

    refusals = [Overloaded("full", retry_after_s=0.01)] * 2
    open_stream = Engine.open_stream

    def refuse_first(engine):
        if refusals:
            raise refusals.pop()
        return open_stream(engine)

    monkeypatch.setattr(Engine, "open_stream", refuse_first)
    assert make_client(iris.address).model("iris").predict(FLOWERS).num_rows == FLOWERS.num_rows
    assert not refusals


@pytest.mark.parametrize("header", [b"", b"nothing of Arrow's"])
def test_answers_that_are_no_table(header):
    """Bytes of another kind are an INTERNAL error."""
    with pytest.raises(PredictError, match="not a table of Arrow") as caught:
        _tables._table_of([_wire.flight_data(header)])
    assert caught.value.code is grpc.StatusCode.INTERNAL


def test_a_deadline(make_client):
    """The timeout of the model's calls ends a call that a server does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        model = make_client(f"127.0.0.1:{silent.getsockname()[1]}").model("", timeout_s=0.2)
        with pytest.raises(DeadlineExceeded):
            model.predict(FLOWERS)


def test_pyarrow_is_not_imported():
    """The client imports pyarrow for nobody who has not imported it."""
    code = "import sys, mlflow_grpc_client._tables as t; t.is_table(1); print('pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
