"""A cache of answers in a server: the ways in, the answers of MLflow itself, and the metrics."""

import json
from typing import Any

import mlflow
import pandas as pd
import pytest
import requests

from mlflow_grpc import protos
from mlflow_grpc.cache_config import CacheLimits
from mlflow_grpc.config import ModelConfig
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.model import ModelInfo
from tests.support import tensors
from tests.support.models import FunctionModel, PartsModel, PlainCodec, judge
from tests.support.scrapes import Scrape
from tests.support.servers import Caller, serving_models
from tests.support.typed import TypedCaller

COLUMNS = ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"]
VALUES = [6.3, 3.3, 6.0, 2.5]
ROW = json.dumps({"dataframe_split": {"columns": COLUMNS, "data": [VALUES]}})
RECORD = dict(zip(COLUMNS, VALUES, strict=True))


def test_answers_of_all_ways_in_are_cached(iris_path):
    """The second of two equal calls is a hit with the same answer, which is that of MLflow; tables of Arrow and answers
    in chunks are not looked up."""
    expected = list(mlflow.pyfunc.load_model(str(iris_path)).predict(pd.DataFrame([RECORD])))
    model = ModelConfig(uri=str(iris_path), name="iris", endpoint=True, cache=CacheLimits(rows=100))
    with serving_models([(model, None)], http_port=0) as server, Caller(server.address) as call:
        typed, triton = TypedCaller(call.channel), tensors.TensorCaller(call.channel)
        columns = [(name, "FP64", [value]) for name, value in RECORD.items()]
        body = {
            "inputs": [{"name": name, "datatype": "FP64", "shape": [1, 1], "data": [v]} for name, v in RECORD.items()]
        }

        def many() -> list[str]:
            rpc: Any = call.channel.stream_stream("/MLflowStream/predict_many", None, protos.Output.FromString)
            texts = (protos.Input(value=text).SerializeToString() for text in (f" {ROW}", f"  {ROW}"))
            return [json.loads(output.value)["predictions"] for output in rpc(texts, timeout=30)]

        ways = [
            lambda: [json.loads(call(ROW))["predictions"]],
            many,
            lambda: [[typed("iris_predict", RECORD).prediction]],
            lambda: [list(typed("iris_predict_batch", {name: [v] for name, v in RECORD.items()}).prediction)],
            lambda: [next(iter(tensors.values(triton.infer(tensors.request("iris", *columns))).values()))],
            lambda: [
                requests.post(f"{server.url}/v2/models/iris/infer", json=body, timeout=30).json()["outputs"][0]["data"]
            ],
        ]
        hits = misses = 0
        for way in ways:
            first = way()
            assert first == [expected] * len(first)
            assert way() == first
            hits, misses = hits + len(first), misses + len(first)
            scrape = Scrape(server.url)
            assert scrape.total("mlflow_grpc_cache_requests_total", result="miss") == misses
            assert scrape.total("mlflow_grpc_cache_requests_total", result="hit") == hits
        headers = {"content-type": "application/json"}
        answer = requests.post(f"{server.url}/invocations", ROW, headers=headers, timeout=30).json()
        assert answer["predictions"] == expected
        scrape = Scrape(server.url)
        assert scrape.total("mlflow_grpc_cache_rows") == misses + 1
        assert scrape.total("mlflow_grpc_requests_total", grpc_code="OK") == hits + misses + 1


def test_a_model_that_is_not_deterministic_has_no_cache():
    """A model that says so is refused, with the key to remove."""
    model = FunctionModel(judge)
    model.info = ModelInfo(deterministic=False)
    config = ModelConfig(uri="m", endpoint=True, cache=CacheLimits(rows=1))
    message = "it says that it is not deterministic, so its answers cannot be cached"
    with pytest.raises(StartError, match=message), serving_models([(config, ServableModel(model, PlainCodec()))]):
        pass


def test_errors_and_answers_in_chunks_are_not_cached():
    """Neither is looked up a second time with success."""
    model = PartsModel()
    config = ModelConfig(uri="m", name="parts", endpoint=True, cache=CacheLimits(rows=10))
    with serving_models([(config, ServableModel(model, PlainCodec()))], http_port=0) as server:
        with Caller(server.address) as call:
            rpc: Any = call.channel.unary_stream("/MLflowStream/predict_stream", None, protos.Output.FromString)
            for _ in range(2):
                chunks = rpc(protos.Input(value="one two").SerializeToString(), timeout=30)
                assert [output.value for output in chunks] == ["one", "two"]
        assert model.made == ["one", "two"] * 2
        scrape = Scrape(server.url)
        assert scrape.total("mlflow_grpc_cache_requests_total") == 0
