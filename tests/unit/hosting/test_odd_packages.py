"""MLModel packages whose code raises unexpectedly, or whose schemas have values without a JSON form."""

import json
import math

import pytest

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.contract import json_schema
from mlflow_grpc.engine import loading
from mlflow_grpc.errors import ModelFailed, StartError, UnserializableOutput
from mlflow_grpc.hosting.mlmodel import adapter
from mlflow_grpc.payload.mlmodel_json import MLModelCodec
from mlflow_grpc.settings import Settings
from tests.support.serialized_models import Number, RoundedSchema

HERE = "tests.support.serialized_models."


def test_a_validator_that_raises_on_the_example_drops_it():
    """The server generates the example, so a validator that raises on it does not keep the model from loading."""
    assert adapter.load(f"{HERE}Raises").info.example == ""
    assert json.loads(adapter.load(f"{HERE}Alias").info.example) == {"instances": 1.0}


def test_a_validator_that_raises_fails_the_model():
    """The caller gets the type of the exception, as for any exception of the model."""
    schema = adapter.load(f"{HERE}Raises").schema
    with pytest.raises(ModelFailed) as caught:
        schema.parse({"code": "b"})
    assert caught.value.error_class == "KeyError"
    assert isinstance(caught.value.__cause__, KeyError)
    assert schema.parse({"code": "a"}).code == "A"


def test_a_property_that_raises_is_a_start_error():
    """A property that raises is a StartError, even if the property is optional."""
    with pytest.raises(StartError, match="DeterministicRaises: its deterministic raised RuntimeError: not known"):
        adapter.load(f"{HERE}DeterministicRaises")
    assert adapter.load(f"{HERE}RootScalar").info.deterministic is None


def test_an_exception_during_loading_is_a_start_error(monkeypatch, caplog):
    """An exception during loading is a StartError with its type, and its traceback is logged. Other models are still
    served."""

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
def test_an_alias_wins_over_the_format_of_its_name(name, record):
    """An alias named like a format is a field, however pydantic finds it. The class itself is the reference."""
    schema = adapter.load(f"{HERE}{name}").schema
    request = MLModelCodec(schema).decode(json.dumps(record), None)
    assert request.bare_answer
    assert request.data == [schema.parse(record)]
    assert request.data[0].value == 1.5


def test_defaults_without_a_json_form_are_omitted():
    """Defaults without a JSON form are omitted from the JSON Schema, and other defaults are kept."""

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


def test_nested_classes_are_refused():
    """The error for a nested class says which module exists and which class does not."""
    with pytest.raises(StartError, match=rf"{HERE}Outer is a class; only a class at the top of a module can be named"):
        adapter.load(f"{HERE}Outer.Inner")
    with pytest.raises(StartError, match=r"no module 'tests.support.nowhere', though 'tests.support' is"):
        adapter.load("tests.support.nowhere.Model")
    with pytest.raises(StartError, match="there is no module 'nowhere'; install the package"):
        adapter.load("nowhere.at_all.Model")


def test_a_serialiser_that_raises_is_the_models_fault():
    """A serialiser that raises is the model's fault, in messages and in JSON."""
    codec = MLModelCodec(adapter.load(f"{HERE}Rounded").schema)
    broken = RoundedSchema.model_construct(value="text", text=1.0)
    request = codec.decode('{"value": 1.0}', None)
    with pytest.raises(UnserializableOutput):
        codec.encode([broken], request)
    with pytest.raises(UnserializableOutput):
        codec.value([broken])
    assert codec.value([Number(value=1.0)]) == {"value": 1.0}
