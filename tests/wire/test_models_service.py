"""Service mlflow_grpc.v1.Models over real gRPC, with models loaded as by a server."""

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlflow_grpc import config, protos
from tests.support import zoo
from tests.support.servers import Caller, serving_models

Model = protos.message_named("mlflow_grpc.v1.Model")
Page = protos.message_named("mlflow_grpc.v1.ListModelsResponse")
NEWER = "tests.support.newer_models."


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """A server with MLflow models and MLModel packages, a broken model and one without an endpoint."""
    folder: Path = tmp_path_factory.mktemp("models")
    zoo.save("params", folder / "params")
    file = folder / "models.yaml"
    file.write_text(f"""
models:
  - {{uri: {folder / "params"}, name: params, version: "2"}}
  - {{class_path: {NEWER}Echo, default: true}}
  - {{class_path: older_models.Iris, endpoint: false}}
  - {{class_path: {NEWER}Breaks, name: broken, on_error: skip}}
""")
    *working, broken = config.read(file).models
    placed = [*((model, None) for model in working), (broken, "no weights")]
    with serving_models(placed) as running, Caller(running.address) as call:
        yield folder, call


def ask(call: Caller, method: str, answer: Any, **fields: Any) -> Any:
    request_class = protos.message_named(f"mlflow_grpc.v1.{method}Request")
    rpc: Any = call.channel.unary_unary(f"/mlflow_grpc.v1.Models/{method}")
    return answer.FromString(rpc(request_class(**fields).SerializeToString(), timeout=30))


def get(call: Caller, name: str = "", version: str = "") -> Any:
    return ask(call, "GetModel", Model, name=name, version=version)


def test_list_has_all_models(described):
    """The list has all models in the order of the configuration, in any state."""
    _, call = described
    listed = ask(call, "ListModels", Page).models
    assert [(model.name, model.version, model.State.Name(model.state)) for model in listed] == [
        ("params", "2", "READY"), ("echo", "1.2.0", "READY"), ("older_iris", "0.1", "READY"), ("broken", "", "FAILED"),
    ]  # fmt: skip
    assert listed[3].error == "no weights"
    assert [[rpc.path.rpartition("/")[2] for rpc in model.rpcs] for model in listed] == [
        ["predict", "predict_many", "params_predict", "params_predict_batch", "params_predict_many"],
        ["predict", "predict_many", "echo_predict", "echo_predict_batch", "echo_predict_many"],
        [], [],
    ]  # fmt: skip


def test_pages(described):
    """Pages follow each other and end."""
    _, call = described
    names, token = [], ""
    for _ in range(2):
        page = ask(call, "ListModels", Page, page_size=3, page_token=token)
        names.append([model.name for model in page.models])
        token = page.next_page_token
    assert (names, token) == ([["params", "echo", "older_iris"], ["broken"]], "")
    tokens = ("x", "99", "²", "01", "1" * 5000)
    refused: list[dict[str, Any]] = [{"page_size": -1}, *({"page_token": bad_token} for bad_token in tokens)]
    for wrong in refused:
        with pytest.raises(grpc.RpcError) as caught:
            ask(call, "ListModels", Page, **wrong)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_description_of_an_mlflow_model(described):
    """The signature is in MLflow's own JSON and as JSON Schema."""
    folder, call = described
    model = get(call, "params", "2")
    signature = zoo._signatures()["params"]
    assert signature is not None
    assert json.loads(model.input.mlflow_json) == json.loads(signature.to_dict()["inputs"])
    assert json.loads(model.params.mlflow_json) == json.loads(signature.to_dict()["params"])
    assert not model.HasField("output")
    assert json.loads(model.input.json_schema)["properties"] == {"a": {"type": "number"}}
    defaults = {
        name: column.get("default") for name, column in json.loads(model.params.json_schema)["properties"].items()
    }
    assert (defaults["temperature"], defaults["flag"], defaults["stops"]) == (0.5, False, ["a"])
    assert model.uri == str(folder / "params")
    assert not model.HasField("deterministic")
    assert not model.batched
    assert model.batching_reason
    rpc, _, typed, *_ = model.rpcs
    assert (typed.path, typed.request_type) == (
        "/model_grpc_service.ModelgRPCService/params_predict", "model_grpc_service.params_input",
    )  # fmt: skip
    assert (rpc.path, dict(rpc.metadata)) == ("/MLflow/predict", {"mlflow-model": "params/2"})
    assert json.loads(call(model.example, mlflow_model=rpc.metadata["mlflow-model"]))["predictions"]


def test_description_of_an_mlmodel_package(described):
    """The description has the package's texts and schemas; the default model is called without metadata."""
    _, call = described
    model = get(call)
    assert (model.name, model.display_name, model.description) == ("echo", "Echo", "Gives back what it gets.")
    assert list(model.flavors) == ["MLModel", "ml_base"]
    assert model.uri == f"mlmodel:{NEWER}Echo"
    schema = json.loads(model.input.json_schema)
    assert schema["required"] == ["name", "born"]
    assert {column["name"]: column["type"] for column in json.loads(model.input.mlflow_json)}["parts"] == "array"
    assert not model.rpcs[0].metadata
    assert json.loads(call(model.example))["born"] == json.loads(model.example)["born"]
    assert get(call, "older_iris", "0.1").input.json_schema


@pytest.mark.parametrize(("name", "version"), [("nope", ""), ("echo", "9"), ("Echo", "")])
def test_unknown_models_are_not_found(described, name, version):
    """An unknown model is NOT_FOUND."""
    _, call = described
    with pytest.raises(grpc.RpcError) as caught:
        get(call, name, version)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.NOT_FOUND
