"""A client of a server with several models."""

import grpc
import pytest
from mlflow_grpc_client import Client, ModelError, PredictError
from mlflow_grpc_client import cli as command

from mlflow_grpc.config import Configuration, ModelConfig
from mlflow_grpc.engine.loading import Loaded
from mlflow_grpc.errors import ModelFailed
from mlflow_grpc.settings import Settings
from tests.support.models import FunctionModel, PlainCodec
from tests.support.servers import InProcess


def fails(text):
    raise ModelFailed("The model raised an exception.", error_class="ValueError")


@pytest.fixture(scope="module")
def address():
    """A server of three models, none of them the default."""
    models = {"a": lambda text: f"a {text}", "b": lambda text: f"b {text}", "fails": fails}
    configs = tuple(ModelConfig(uri="(in process)", name=name, version="1", endpoint=True) for name in models)
    running = InProcess(Settings(model_uri="m", port=0), Configuration(models=configs))
    running.start(None, None)

    async def load() -> None:
        for entry, function in zip(running.server.catalog.entries, models.values(), strict=True):
            await running.server.host(entry, Loaded(FunctionModel(function), PlainCodec()))
        await running.server.open()

    running.run(load)
    yield running.address
    running.stop()


def test_a_call_names_its_model(address):
    """By name, or by name and version."""
    with Client(address) as client:
        assert client.predict_text("x", model="a") == "a x"
        assert client.predict_text("x", model="b/1") == "b x"


def test_errors_say_what_was_wrong(address):
    """No such model, none named, and the type of what the model raised."""
    with Client(address) as client:
        with pytest.raises(PredictError, match=r"There are: a/1, b/1, fails/1\.") as caught:
            client.predict_text("x", model="c")
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_DOES_NOT_EXIST")
        with pytest.raises(PredictError, match="name one in the call's metadata"):
            client.predict_text("x")
        with pytest.raises(ModelError) as failed:
            client.predict_text("x", model="fails")
        assert failed.value.error_class == "ValueError"


def test_the_command_names_a_model(address, capfd):
    """With -m."""
    for arguments, expected in ((["-m", "b"], "b x\n"), (["--model", "a/1"], "a x\n")):
        with pytest.raises(SystemExit) as ended:
            command.main(["--address", address, *arguments, "x"])
        assert ended.value.code == 0
        assert capfd.readouterr().out == expected
