"""MLModel packages whose code raises where nobody expects it, or whose schemas say what JSON has no word for."""

import json
import math

import pytest

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.contract import json_schema
from mlflow_grpc.engine import loading
from mlflow_grpc.errors import ModelFailed, StartError, UnserializableOutput
from mlflow_grpc.hosting.mlmodel import adapter
from mlflow_grpc.payload.mlmodel_json import RecordsCodec
from mlflow_grpc.settings import Settings
from tests.support.serialized_models import Number, RoundedSchema

HERE = "tests.support.serialized_models."


def test_an_example_that_a_validator_raises_at_is_none():
    """The server makes it up, so that the model is loaded all the same."""
    assert adapter.load(f"{HERE}Raises").info.example == ""
    assert json.loads(adapter.load(f"{HERE}Alias").info.example) == {"instances": 1.0}


def test_a_validator_that_raises_fails_the_model():
    """The caller is told the type of the exception, as of any that the model raises."""
    schema = adapter.load(f"{HERE}Raises").schema
    with pytest.raises(ModelFailed) as caught:
        schema.parse({"code": "b"})
    assert caught.value.error_class == "KeyError"
    assert isinstance(caught.value.__cause__, KeyError)
    assert schema.parse({"code": "a"}).code == "A"


def test_a_property_that_raises_is_a_reason_not_to_start():
    """Also one that a model need not have."""
    with pytest.raises(StartError, match="DeterministicRaises: its deterministic raised RuntimeError: not known"):
        adapter.load(f"{HERE}DeterministicRaises")
    assert adapter.load(f"{HERE}RootScalar").info.deterministic is None


def test_whatever_loading_raises_is_a_reason_not_to_start(monkeypatch, caplog):
    """With its type; the log has the traceback. A server with other models goes on."""

    def load(*args, **more):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(adapter, "load", load)
    config = ModelConfig(class_path=f"{HERE}RootScalar", endpoint=True)
    with pytest.raises(StartError, match="it cannot be loaded: ZeroDivisionError: by zero"):
        loading.load(config, Settings(model_uri="m"))
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("Alias", {"instances": 1.5}),
        ("Choices", {"number": 1.5}),
        ("Choices", {"inputs": {"deep": 1.5}}),
    ],
)
def test_an_alias_that_is_called_as_a_format_is(name, record):
    """It is a field, whichever way pydantic finds it: the oracle is the class itself."""
    schema = adapter.load(f"{HERE}{name}").schema
    request = RecordsCodec(schema).decode(json.dumps(record), None)
    assert request.bare_answer
    assert request.data == [schema.parse(record)]
    assert request.data[0].value == 1.5


def test_defaults_that_json_has_no_word_for():
    """They are left out of the JSON Schema, which is JSON then, and the others stay."""

    def refuse(word):
        raise ValueError(word)

    info = adapter.load(f"{HERE}Defaults").info
    properties = json.loads(info.input.json_schema, parse_constant=refuse)["properties"]
    assert "default" not in properties["ratio"]
    assert properties["default"]["default"] == 1
    nested = {"properties": {"default": {"examples": [[1, math.inf]], "title": "T", "default": {"k": [1.5]}}}}
    assert json.loads(json_schema.text_of(nested)) == {
        "properties": {"default": {"title": "T", "default": {"k": [1.5]}}}
    }


def test_a_class_within_a_class():
    """The line says what is there and what is not."""
    with pytest.raises(StartError, match=rf"{HERE}Outer is a class; only a class at the top of a module can be named"):
        adapter.load(f"{HERE}Outer.Inner")
    with pytest.raises(StartError, match=r"no module 'tests.support.nowhere', though 'tests.support' is"):
        adapter.load("tests.support.nowhere.Model")
    with pytest.raises(StartError, match="there is no module 'nowhere'; install the package"):
        adapter.load("nowhere.at_all.Model")


def test_an_answer_that_its_own_serialiser_raises_at():
    """It is the model's fault, in messages as in JSON."""
    codec = RecordsCodec(adapter.load(f"{HERE}Rounded").schema)
    broken = RoundedSchema.model_construct(value="text", text=1.0)
    request = codec.decode('{"value": 1.0}', None)
    with pytest.raises(UnserializableOutput):
        codec.encode([broken], request)
    with pytest.raises(UnserializableOutput):
        codec.value([broken])
    assert codec.value([Number(value=1.0)]) == {"value": 1.0}
