"""Arrow tables over HTTP: `application/vnd.apache.arrow.stream` at /invocations."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import requests
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.daemon_threads import in_daemon_thread
from tests.support.servers import InProcess, serving_models
from tests.support.tables import saved

ARROW = "application/vnd.apache.arrow.stream"
JSON = {"Content-Type": "application/json"}


def total(frame: pd.DataFrame, params: Any = None) -> Any:
    if frame["x"].isna().any():
        raise ValueError("a missing value")
    return (frame["x"] + frame["s"].str.len()).to_numpy()


SIGNATURE = ModelSignature(
    Schema([ColSpec(DataType.double, "x"), ColSpec(DataType.string, "s")]),
    Schema([ColSpec(DataType.double, "total")]),
)


def times(frame: pd.DataFrame, params: Any = None) -> Any:
    return frame["x"].to_numpy() * params["factor"]


TIMES = ModelSignature(
    Schema([ColSpec(DataType.double, "x")]),
    Schema([ColSpec(DataType.double, "product")]),
    ParamSchema([ParamSpec("factor", DataType.double, 2.0)]),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    """A server of two models with an HTTP port."""
    path = saved(tmp_path_factory, "http_total", total, SIGNATURE)
    other = saved(tmp_path_factory, "http_times", times, TIMES)
    models = [
        (ModelConfig(uri=str(path), name="total", endpoint=True, default=True), None),
        (ModelConfig(uri=str(other), name="times", endpoint=True), None),
    ]
    with serving_models(models, http_port=0) as running:
        yield running


def stream_of(table: pa.Table, rows: int | None = None, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def post(
    server: InProcess, body: bytes, accept: str = "*/*", path: str = "/invocations", **more: str
) -> requests.Response:
    headers = {"Content-Type": ARROW, "Accept": accept, **more}
    return requests.post(f"{server.url}{path}", body, headers=headers, timeout=30)


TABLE = pa.table({"x": [1.5, 2.0, 3.0], "s": ["a", "", "ccc"]})


def as_json(server: InProcess, rows: list[Any]) -> requests.Response:
    payload = {"dataframe_split": {"columns": ["x", "s"], "data": rows}}
    return requests.post(f"{server.url}/invocations", json.dumps(payload), headers=JSON, timeout=30)


def test_a_table_gets_json(server):
    """The answer has the bytes of the answer to the same rows as JSON."""
    answer = post(server, stream_of(TABLE))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.content == as_json(server, [[1.5, "a"], [2.0, ""], [3.0, "ccc"]]).content
    assert answer.json() == {"predictions": [2.5, 2.0, 6.0]}


@pytest.mark.parametrize("path", ["/invocations", "/models/total/invocations"])
@pytest.mark.parametrize("options", [{}, {"compression": "zstd"}, {"compression": "lz4"}], ids=str)
def test_a_table_gets_a_table(server, path, options):
    """A caller that accepts Arrow gets a table, for all batches of the body together."""
    table = pa.table({"x": np.arange(1_000.0), "s": pa.array(["ab"] * 1_000).dictionary_encode()})
    answer = post(server, stream_of(table, rows=300, **options), f"{ARROW}, */*;q=0.1", path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, ARROW)
    with pa.ipc.open_stream(answer.content) as reader:
        assert reader.read_all().to_pydict() == {"total": [2.0 + x for x in range(1_000)]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "it is empty"),
        (b"nothing of Arrow's", "cannot be read"),
        (stream_of(TABLE)[:-60], "in the middle of a message"),
        (stream_of(TABLE.select(["x"])), "lacks columns of the model: s"),
        (stream_of(TABLE.set_column(0, "x", [["a", "b", "c"]])), "x has the Arrow type string"),
    ],
)
def test_refusals(server, body, text):
    """A body that is no table, or does not fit, is a 400 with the reason."""
    answer = post(server, body)
    assert answer.status_code == 400
    assert text in answer.json()["message"]


def test_params(server):
    """The params of a table are in a header, with MLflow's checks; a payload that has params itself takes no header."""
    body, path = stream_of(TABLE.select(["x"])), "/models/times/invocations"

    def answer(text: str) -> requests.Response:
        return post(server, body, path=path, **{"mlflow-params": text})

    assert post(server, body, path=path).json() == {"predictions": [3.0, 4.0, 6.0]}
    assert answer('{"factor": 10}').json() == {"predictions": [15.0, 20.0, 30.0]}
    for text, problem in (
        ("[1]", "must be a JSON object"),
        ("{", "must be a JSON object"),
        ('{"factor": "x"}', "factor"),
    ):
        refused = answer(text)
        assert (refused.status_code, problem in refused.json()["message"]) == (400, True)
    headers = {"mlflow-params": '{"factor": 10}', **JSON}
    refused = requests.post(f"{server.url}{path}", '{"inputs": {"x": [1.0]}}', headers=headers, timeout=30)
    assert (refused.status_code, "Put params into the payload" in refused.json()["message"]) == (400, True)


def test_large_tables_are_read_in_a_thread(server, monkeypatch):
    """The event loop does not read a large body, and answers other calls meanwhile."""
    threads = []

    async def noted(function: Any, name: str) -> Any:
        threads.append(name)
        return await in_daemon_thread(function, name)

    monkeypatch.setattr("mlflow_grpc.engine.tables.in_daemon_thread", noted)
    small, large = (pa.table({"x": np.arange(count), "s": ["a"] * count}) for count in (10, 5_000))
    assert post(server, stream_of(small)).status_code == 200
    assert "read-arrow" not in threads
    assert post(server, stream_of(large)).status_code == 200
    assert "read-arrow" in threads


def test_an_error_of_the_model(server):
    """An exception of the model has the status that it has for JSON."""
    answer = post(server, stream_of(pa.table({"x": [float("nan")], "s": ["a"]})), ARROW)
    assert answer.status_code == as_json(server, [[float("nan"), "a"]]).status_code != 200


def test_a_table_without_rows(server):
    """The model gets an empty table, as from JSON."""
    assert as_json(server, []).json() == {"predictions": []}
    answer = post(server, stream_of(TABLE[:0]), ARROW)
    assert pa.ipc.open_stream(answer.content).read_all().to_pydict() == {"total": []}
