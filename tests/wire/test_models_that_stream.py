"""Streamed answers of MLflow models and MLModel packages, as text and typed, over real gRPC."""

import json
from typing import Any

import grpc
import mlflow
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from mlflow_grpc import protos
from mlflow_grpc.config import Decorator, ModelConfig
from tests.support.servers import Caller, serving_models
from tests.support.typed import TypedCaller, plain

NEWER = "tests.support.newer_models."


class WordStream(PythonModel):
    """Yields one word after the other, and the context that MLflow keeps for a prediction."""

    def predict(self, context, model_input, params=None):
        return list(self.predict_stream(context, model_input, params))

    def predict_stream(self, context, model_input, params=None):
        import threading

        from mlflow.pyfunc.context import get_prediction_context

        text = model_input["text"] if isinstance(model_input, dict) else model_input
        for word in str(text).split():
            assert get_prediction_context() is not None
            if word == "raise":
                raise ValueError("a secret")
            yield word.upper() if (params or {}).get("loud") else word
        yield threading.current_thread().name.split("-")[0]


class Deltas(PythonModel):
    """Yields chunks that differ from the output, in every JSON form."""

    def predict(self, context, model_input, params=None):
        return [{"text": "whole"}]

    def predict_stream(self, context, model_input, params=None):
        yield {"delta": {"text": model_input["text"], "places": [1, 2.5, None]}}
        yield ["a", "b", "c"]
        yield "d"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    signature = ModelSignature(
        Schema([ColSpec(DataType.string, "text")]),
        Schema([ColSpec(DataType.string)]),
        ParamSchema([ParamSpec("loud", DataType.boolean, False)]),
    )
    for name, declared in (("words", signature), ("any", None)):
        mlflow.pyfunc.save_model(
            folder / name, python_model=WordStream(), signature=declared, pip_requirements=["mlflow"]
        )
    named = ModelSignature(Schema([ColSpec(DataType.string, "text")]), Schema([ColSpec(DataType.string, "text")]))
    mlflow.pyfunc.save_model(folder / "deltas", python_model=Deltas(), signature=named, pip_requirements=["mlflow"])
    models = [
        *(ModelConfig(uri=str(folder / name), name=name, endpoint=True) for name in ("words", "any", "deltas")),
        ModelConfig(class_path=f"{NEWER}Words", name="package", endpoint=True),
        ModelConfig(class_path=f"{NEWER}Echo", name="echo", endpoint=True),
        ModelConfig(
            class_path=f"{NEWER}Words",
            name="decorated",
            endpoint=True,
            decorators=(Decorator(class_path=f"{NEWER}Suffix", configuration={"suffix": "!"}),),
        ),
    ]
    with serving_models([(model_config, None) for model_config in models]) as running, Caller(running.address) as call:
        yield call, TypedCaller(call.channel)


def parts(call: Caller, model: str, payload: Any) -> list[Any]:
    rpc: Any = call.channel.unary_stream("/MLflowStream/predict_stream")
    request = protos.Input(value=payload if isinstance(payload, str) else json.dumps(payload)).SerializeToString()
    answers = rpc(request, timeout=30, metadata=(("mlflow-model", model),))
    return [json.loads(protos.Output.FromString(data).value) for data in answers]


def typed_parts(typed: TypedCaller, base: str, fields: dict[str, Any]) -> list[Any]:
    method = typed.method(f"{base}_predict_stream")
    rpc: Any = typed._channel.unary_stream(f"/{method.containing_service.full_name}/{method.name}")
    answer = protos.message_class(method.output_type)
    answers = rpc(typed.input(f"{base}_predict", fields).SerializeToString(), timeout=30)
    return [plain(answer.FromString(data)) for data in answers]


@pytest.mark.parametrize(
    ("model", "payload", "expected"),
    [
        ("words", {"dataframe_records": [{"text": "a b"}]}, ["a", "b", "model"]),
        ("words", {"dataframe_split": {"columns": ["text"], "data": [["a"]]}, "params": {"loud": True}}, ["A", "model"]),
        ("words", {"inputs": {"text": ["a"]}}, ["a", "model"]),
        ("any", {"inputs": ["a b"]}, ["a", "b", "model"]),
    ],
)  # fmt: skip
def test_chunks_of_an_mlflow_model(served, model, payload, expected):
    """`predict_stream` gets the only row of the input of `predict`, with params; each chunk is written like an answer."""
    call, _ = served
    assert parts(call, model, payload) == [{"predictions": word} for word in expected]


def test_chunks_of_a_package(served):
    """A bare record has bare chunks; a record in one of MLflow's formats has chunks with predictions."""
    call, _ = served
    assert parts(call, "package", {"text": "a b"}) == [{"text": "a"}, {"text": "b"}]
    assert parts(call, "package", {"instances": [{"text": "a"}]}) == [{"predictions": [{"text": "a"}]}]


def test_typed_chunks(served):
    """Each chunk is a message of the output."""
    _, typed = served
    assert typed_parts(typed, "words", {"text": "a b"}) == [{"prediction": word} for word in ("a", "b", "model")]
    assert typed_parts(typed, "words", {"text": "a", "params": {"loud": True}})[0] == {"prediction": "A"}
    assert typed_parts(typed, "package", {"text": "a b"}) == [{"text": "a"}, {"text": "b"}]


def test_typed_chunks_of_unknown_type(served):
    """Chunks of unknown type have their JSON form, whatever the output is."""
    call, typed = served
    expected = [answer["predictions"] for answer in parts(call, "deltas", {"dataframe_records": [{"text": "a"}]})]
    assert expected[0] == {"delta": {"text": "a", "places": [1, 2.5, None]}}
    assert [answer["prediction"] for answer in typed_parts(typed, "deltas", {"text": "a"})] == expected
    assert typed.method("deltas_predict_stream").output_type.name == "deltas_chunk"
    assert typed.method("words_predict_stream").output_type.name == "words_output"


@pytest.mark.parametrize(
    ("model", "payload", "code", "text"),
    [
        ("words", {"dataframe_records": [{"other": "a"}]}, "INVALID_ARGUMENT", "text"),
        ("words", {"dataframe_records": [{"text": "a"}, {"text": "b"}]}, "INVALID_ARGUMENT", "these are 2"),
        ("words", {"dataframe_records": [{"text": "raise"}]}, "INTERNAL", "The model raised"),
        ("words", "{", "INVALID_ARGUMENT", "JSON"),
        ("package", {"text": 1}, "INVALID_ARGUMENT", "text"),
        ("package", {"instances": [{"text": "a"}, {"text": "b"}]}, "INVALID_ARGUMENT", "these are 2"),
        ("package", {"text": "raise"}, "INTERNAL", "The model raised"),
        ("echo", {"name": "a", "born": "2020-01-01"}, "UNIMPLEMENTED", "predict_stream"),
        ("decorated", {"text": "a"}, "UNIMPLEMENTED", "predict_stream"),
    ],
)
def test_errors_of_streams(served, model, payload, code, text):
    """Errors are those of `predict`, and no call bypasses a decorator without `predict_stream`."""
    call, _ = served
    with pytest.raises(grpc.RpcError) as caught:
        parts(call, model, payload)
    assert caught.value.code().name == code
    details = caught.value.details() or ""
    assert text in details
    assert "secret" not in details


def test_only_models_that_stream_have_the_typed_rpc(served):
    """Reflection and GetModel have the streaming RPC only for models that stream."""
    call, typed = served
    methods = [method.name for method in typed.service.methods if method.name.endswith("_predict_stream")]
    assert methods == ["words_predict_stream", "deltas_predict_stream", "package_predict_stream"]
    rpc: Any = call.channel.unary_unary("/mlflow_grpc.v1.Models/ListModels")
    listed = protos.message_named("mlflow_grpc.v1.ListModelsResponse").FromString(rpc(b"", timeout=30)).models
    streaming = {
        model.name for model in listed for model_rpc in model.rpcs if model_rpc.path == "/MLflowStream/predict_stream"
    }
    assert streaming == {"words", "any", "deltas", "package"}
