"""A client of a server with several models."""

import asyncio
import json
import re
import shlex
import subprocess

import grpc
import pytest
from mlflow_grpc_client import AsyncClient, Client, Model, ModelError, PredictError
from mlflow_grpc_client._cli.describe import Connection, describe

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import ModelFailed
from tests.support import zoo
from tests.support.commands import predict_command
from tests.support.models import FunctionModel, PlainCodec
from tests.support.servers import serving_models


def fails(text):
    raise ModelFailed("The model raised an exception.", error_class="ValueError")


@pytest.fixture(scope="module")
def address():
    """A server of three models without a default."""
    models = {"a": lambda text: f"a {text}", "b": lambda text: f"b {text}", "fails": fails}
    placed = [
        (
            ModelConfig(uri="(in process)", name=name, version="1", endpoint=True),
            ServableModel(FunctionModel(function), PlainCodec()),
        )
        for name, function in models.items()
    ]
    with serving_models(placed) as running:
        yield running.address


def test_a_call_names_its_model(address):
    """A call names a model by name, or by name and version."""
    with Client(address) as client:
        assert client.predict_text("x", model="a") == "a x"
        assert client.predict_text("x", model="b/1") == "b x"


def test_errors_have_the_reason(address):
    """Errors for an unknown model, for no model, and the type of the model's exception."""
    with Client(address) as client:
        with pytest.raises(PredictError, match=r"There are: a/1, b/1, fails/1\.") as caught:
            client.predict_text("x", model="c")
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_DOES_NOT_EXIST")
        with pytest.raises(PredictError, match="name one in the metadata or header"):
            client.predict_text("x")
        with pytest.raises(ModelError) as failed:
            client.predict_text("x", model="fails")
        assert failed.value.error_class == "ValueError"


def test_the_command_names_a_model(address):
    """The flag -m of the command selects the model."""
    for arguments, expected in ((["-m", "b"], "b x\n"), (["--model", "a/1"], "a x\n")):
        assert predict_command("--address", address, *arguments, "x") == (0, expected, "")


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """A server of an MLflow model with params and an MLModel package."""
    folder = tmp_path_factory.mktemp("models")
    zoo.save("params", folder / "params")
    models = (
        ModelConfig(uri=str(folder / "params"), name="params", version="2", endpoint=True),
        ModelConfig(class_path="tests.support.newer_models.Echo", endpoint=True),
    )
    with serving_models([(model, None) for model in models]) as running:
        yield running.address


def test_descriptions_of_models(described):
    """Both clients return the descriptions, whose examples are valid payloads."""
    with Client(described) as client:
        models = client.models()
        assert [(model.label, model.state) for model in models] == [("params/2", "READY"), ("echo/1.2.0", "READY")]
        params, echo = models
        assert params.input_schema["properties"] == {"a": {"type": "number"}}
        assert params.params_schema["properties"]["top_k"]["default"] == 3
        assert (params.output_schema, params.deterministic, params.batched) == ({}, None, False)
        assert echo.flavors == ("MLModel", "ml_base")
        typed = "/model_grpc_service.ModelgRPCService/echo_"
        assert echo.rpcs == (
            "/MLflow/predict", "/MLflowStream/predict_many", *(f"{typed}{rpc}" for rpc in ("predict", "predict_batch", "predict_many"))
        )  # fmt: skip
        for model in models:
            assert client.predict_text(model.example, model=model.label)

    async def same() -> list[Model]:
        async with AsyncClient(described) as client:
            return await client.models()

    assert asyncio.run(same()) == models


def test_the_command_lists_and_describes(described):
    """--list prints a line for each model, and --describe fields with types, defaults and descriptions, and a call to paste."""
    code, out, _ = predict_command("-a", described, "--list")
    assert (code, out.splitlines()) == (
        0, ["params/2  READY", "echo/1.2.0  READY  MLModel, ml_base  Gives back what it gets."],
    )  # fmt: skip
    code, out, _ = predict_command("-a", described, "--describe", "params")
    lines = out.splitlines()
    assert re.fullmatch("uri: /.*/params", lines[1])
    assert "  a: number" in lines
    assert '  label: string, default "x"' in lines
    assert "    print(client.model('params/2').predict(a=1.0))" in lines
    code, out, _ = predict_command("-a", described, "--describe", "echo/1.2.0")
    lines = out.splitlines()
    assert lines[1:3] == ["display name: Echo", "description: Gives back what it gets."]
    assert '  size: "small" | "large", default "small"' in lines
    assert "  parts: list of Part, default []" in lines
    assert "  seen: date-time or null, optional" in lines
    assert "    print(client.model('echo/1.2.0').predict(name='text', born='2020-02-29'))" in lines
    (pasted,) = (shlex.split(line.removeprefix("example: ")) for line in lines if line.startswith("example: "))
    code, out, _ = predict_command(*pasted[1:])
    assert (code, json.loads(out)["name"]) == (0, "text")
    code, _, error = predict_command("-a", described, "--describe", "nope")
    assert (code, error) == (1, "error: NOT_FOUND: There is no model nope here. There are: params/2, echo/1.2.0.\n")


def test_a_server_that_lists_no_models(scripted_server):
    """A server without this service is UNIMPLEMENTED, and so is an unparsable answer."""
    scripted_server.behaviour = lambda data, context: b"\xff"
    with (
        Client(scripted_server.address) as client,
        pytest.raises(ModelError, match="are not an answer of /mlflow_grpc"),
    ):
        client.models()


@pytest.mark.parametrize(
    "example", ['{\n  "name": "é",\n\t"born": "2020-02-29"\n}', '{"name": "\u200b\x85 \'", "n": 1.0}']
)
def test_an_example_of_several_lines_can_be_pasted(example):
    """The example is printable JSON on one line, and a shell passes the same payload to the command."""
    model = Model(
        *("m", "", "READY", "", "", "", (), "", "", "", {}, {}, {}), batched=False, batching_reason="",
        deterministic=None, rpcs=(), example=example,
    )  # fmt: skip
    (line,) = (line for line in describe(model, Connection("there:1")) if line.startswith("example: "))
    assert line.isprintable()
    command = f"printf %s {line.removeprefix('example: mlflow-grpc-predict -a there:1 -m m ')}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=True)
    assert json.loads(done.stdout) == json.loads(example)
