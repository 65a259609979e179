"""MLModel packages of both generations, through the adapter and its codec, without a server."""

import json
import math
from importlib import import_module

import pytest
from ml_base import MLModel as Interface

from mlflow_grpc.config import Decorator
from mlflow_grpc.errors import InvalidPayload, ModelFailed, StartError, UnserializableOutput, UnsupportedContentType
from mlflow_grpc.hosting.mlmodel import adapter
from mlflow_grpc.payload.mlmodel_json import MLModelCodec

NEWER = "tests.support.newer_models."


class Served:
    """A model and its codec, called with text."""

    def __init__(self, path, **more):
        self.model = adapter.load(path, **more)
        self.codec = MLModelCodec(self.model.schema)

    def text(self, text, content_type=None):
        request = self.codec.decode(text, content_type)
        return self.codec.encode(self.model.predict(request.data, request.params), request)

    def __call__(self, payload):
        return json.loads(self.text(json.dumps(payload)))

    def refusal(self, payload):
        """Returns the message, and the fields with their descriptions."""
        with pytest.raises(InvalidPayload) as caught:
            self(payload)
        return caught.value.message, {violation.field: violation.description for violation in caught.value.violations}


@pytest.fixture(scope="module")
def echo():
    return Served(f"{NEWER}Echo")


@pytest.fixture(scope="module")
def older():
    return Served("older_models.Iris")


RECORD = {"name": "a", "born": "2020-02-29"}
COMPLETE = {
    "name": "a", "size": "large", "born": "2020-02-29", "seen": "2021-01-02T03:04:05Z",
    "parts": [{"weight": 1.5, "tags": ["x", ""]}], "extra": {"k": 2}, "count": 9007199254740993, "flag": True,
    "inputs": 0.0, "type": "other",
}  # fmt: skip


def test_names_and_versions_come_from_the_package(echo, older):
    """Both generations have a name and a version. A name that callers cannot write becomes a valid one."""
    assert (echo.model.name, echo.model.version, echo.model.description) == ("echo", "1.2.0", "MLModel, ml_base")
    assert (older.model.name, older.model.version) == ("older_iris", "0.1")
    assert older.model.description == "MLModel, ml_model_abc"
    strict = Served(f"{NEWER}Strict").model
    assert (strict.name, strict.qualified_name) == ("strict-model", "strict model")
    assert Served(f"{NEWER}Echo", name="mine").model.name == "mine"


def test_a_bare_record_gets_the_bare_output(echo):
    """Nested objects, lists, maps, enums, dates and optional fields pass in and out; absent fields have their defaults."""
    assert echo(COMPLETE) == {**COMPLETE, "seen": "2021-01-02T03:04:05Z"}
    assert echo(RECORD) == {
        **RECORD, "size": "small", "seen": None, "parts": [], "extra": {}, "count": 0, "flag": False, "inputs": None,
        "type": "plain",
    }  # fmt: skip


def test_output_equals_the_packages_own(echo):
    """The expected output comes from the package itself, called without this server."""
    module = import_module("tests.support.newer_models")
    expected = module.Echo().predict(module.Everything.model_validate(COMPLETE)).model_dump(mode="json", by_alias=True)
    assert echo(COMPLETE) == expected


@pytest.mark.parametrize(
    "payload",
    [
        {"dataframe_records": [RECORD, {**RECORD, "name": "b"}]},
        {"instances": [RECORD, {**RECORD, "name": "b"}]},
        {"dataframe_split": {"columns": ["born", "name"], "data": [["2020-02-29", "a"], ["2020-02-29", "b"]]}},
        {"dataframe_split": {"index": [0, 1], "columns": ["name", "born"], "data": [["a", "2020-02-29"], ["b", "2020-02-29"]]}},
    ],
)  # fmt: skip
def test_records_in_mlflows_formats(echo, payload):
    """Each record has an answer under the key predictions."""
    assert [answer["name"] for answer in echo(payload)["predictions"]] == ["a", "b"]


def test_a_field_wins_over_the_format_of_its_name(echo):
    """A field named like a format is a field; for a model without that field the format counts."""
    assert echo({**RECORD, "inputs": 2.5})["inputs"] == 2.5
    strict = Served(f"{NEWER}OldStyle")
    assert [prediction["number"] for prediction in strict({"inputs": {"number": [1, 2]}})["predictions"]] == [1, 2]
    assert [prediction["number"] for prediction in strict({"inputs": [{"number": 3}]})["predictions"]] == [3]


def test_no_records_give_no_predictions(echo):
    """An empty list of records has an empty list of predictions."""
    assert echo({"instances": []}) == {"predictions": []}


def test_csv(echo):
    """Cells are texts that the schema reads; an empty cell is an absent field."""
    answer = json.loads(echo.text("name,born,count,inputs\na,2020-02-29,7,\n\nb,2020-03-01,,1.5\n", "text/csv"))
    assert [(prediction["name"], prediction["count"], prediction["inputs"]) for prediction in answer["predictions"]] == [
        ("a", 7, None), ("b", 0, 1.5),
    ]  # fmt: skip
    for text in ("", 'a,b\n"x', "a,b\n1"):
        with pytest.raises(InvalidPayload):
            echo.text(text, "text/csv; charset=utf-8")
    with pytest.raises(UnsupportedContentType):
        echo.text("{}", "application/xml")


def test_schema_violations_are_named_by_path(echo):
    """Each field at fault is named by its path with the schema library's message, without values of the record."""
    message, fields = echo.refusal({"born": "soon", "parts": [{"weight": 1}, {"weight": -1}], "size": "secret"})
    assert set(fields) == {"name", "born", "parts[1].weight", "size"}
    assert fields["name"] == "Field required"
    assert fields["parts[1].weight"] == "Input should be greater than 0"
    assert "parts[1].weight: Input should be greater than 0" in message
    assert "secret" not in message + str(fields)


def test_violations_have_the_path_of_their_record(echo):
    """The path of a record among several precedes the field."""
    message, fields = echo.refusal({"instances": [RECORD, {"name": "b"}]})
    assert fields == {"[1].born": "Field required"}
    assert "The record [1]" in message


def test_strict_schemas_and_numpy_outputs():
    """Strict schemas also take texts for dates in JSON, and numpy values become JSON values."""
    strict = Served(f"{NEWER}Strict")
    assert strict({"day": "2020-02-29", "ratio": 0.5}) == {"value": 0.5, "array": [0, 1], "day": "2020-02-29"}
    _, fields = strict.refusal({"day": "2020-02-29", "ratio": "0.5", "more": 1})
    assert set(fields) == {"ratio", "more"}
    answer = json.loads(strict.text('{"day": "2020-02-29", "ratio": NaN}'))
    assert math.isnan(answer["value"])


def test_pydantic_1():
    """Schemas of pydantic 1 work for input and output."""
    old = Served(f"{NEWER}OldStyle")
    assert old({"number": 3, "size": "large"}) == {"number": 3, "size": "large", "at": "2020-02-29T12:00:00"}
    _, fields = old.refusal({"number": 0, "size": "huge"})
    assert set(fields) == {"number", "size"}
    assert "greater than 0" in fields["number"]


def test_the_older_interface(older):
    """Records are dictionaries, and a date in the output becomes a text."""
    assert older({"sepal_length": 5.1, "petal": {"length": 1.4}}) == {"species": "setosa", "seen": "2020-02-29"}
    answers = older({"instances": [{"sepal_length": 5.1, "petal": {"length": 4.0}, "colors": ["blue"]}]})
    assert answers == {"predictions": [{"species": "virginica", "seen": "2020-02-29"}]}
    assert Served("older_models.Iris", configuration={"seen": "then"})(
        {"sepal_length": 5.1, "petal": {"length": 1.4}}
    ) == {"species": "setosa", "seen": "then"}


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"sepal_length": "x", "petal": {"length": 1.0}}, "sepal_length"),
        ({"sepal_length": 1.0, "petal": {"length": -1.0}}, "petal.length"),
        ({"sepal_length": 1.0}, "petal"),
        ({"sepal_length": 1.0, "petal": {}}, "petal.length"),
        ({"sepal_length": 1.0, "petal": {"length": 1.0}, "more": 2}, "more"),
    ],
)
def test_violations_of_older_schemas_name_the_field(older, record, field):
    """The field at fault is read from the library's message."""
    message, fields = older.refusal(record)
    assert list(fields) == [field]
    assert "does not fit the model's schema" in message


def test_exceptions_of_models_have_a_fault(echo, older):
    """A refusal by the model is the caller's fault and keeps its text. Any other exception is the model's, with its
    type only."""
    assert echo.refusal({**RECORD, "name": "refuse"})[0].endswith("No such thing is known.")
    assert older.refusal({"sepal_length": -1.0, "petal": {"length": 1.0}})[0].endswith("A sepal has a length.")
    for served, record, error_class in (
        (echo, {**RECORD, "name": "raise"}, "ValueError"),
        (echo, {**RECORD, "name": "exit"}, "SystemExit"),
        (older, {"sepal_length": 0.0, "petal": {"length": 1.0}}, "ZeroDivisionError"),
    ):
        with pytest.raises(ModelFailed) as caught:
            served(record)
        assert caught.value.error_class == error_class
        assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "text",
    ["", "[", "[]", "null", "1", '"x"', "{", '{"instances": 1}', '{"instances": [1]}', '{"dataframe_split": {}}',
     '{"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}', '{"dataframe_split": {"columns": [1], "data": [[1]]}}',
     '{"dataframe_records": [], "instances": []}', '{"instances": [], "params": {}}', "[" * 100_000,
     '{"name": ' + "9" * 5000 + "}"],
)  # fmt: skip
def test_invalid_payloads_are_refused(echo, text):
    """An invalid payload of any form is refused in one line."""
    with pytest.raises(InvalidPayload) as caught:
        echo.text(text)
    assert caught.value.message
    assert "\n" not in caught.value.message


def test_an_output_without_a_form_in_json():
    """An output without a JSON form is the model's fault."""
    served = Served(f"{NEWER}Echo")
    request = served.codec.decode(json.dumps(RECORD), None)
    with pytest.raises(UnserializableOutput):
        served.codec.encode([object()], request)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.Model", "nowhere.Model: there is no module 'nowhere'; install the package"),
        ("tests.support.nowhere.Model", "there is no module 'tests.support.nowhere'"),
        (f"{NEWER}Nothing", "has no Nothing"),
        (f"{NEWER}not_a_class", "is not a class, but of type int"),
        (f"{NEWER}NoModel", "does not derive from ml_base.MLModel or ml_model_abc.MLModel"),
        (f"{NEWER}Half", "is abstract: it does not define __init__, description"),
        (f"{NEWER}Breaks", "its constructor raised RuntimeError: no weights at all"),
        (f"{NEWER}Odd", "Odd: its version is not a string, but of type int"),
        (f"{NEWER}NoSchema", "input_schema is neither a pydantic class nor a Schema object"),
    ],
)
def test_classes_that_cannot_be_hosted(path, message):
    """A class that cannot be hosted is refused in one line, with the class and the reason."""
    with pytest.raises(StartError) as caught:
        adapter.load(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_constructor_arguments_are_refused():
    """The configuration must match the constructor's keyword arguments."""
    assert Served(f"{NEWER}Echo", configuration={"suffix": "!"})(RECORD)["name"] == "a!"
    with pytest.raises(StartError, match=r"its constructor raised TypeError: .*depth"):
        adapter.load(f"{NEWER}Echo", configuration={"depth": 3})


def test_decorators_are_stacked_in_order():
    """Decorators apply from the innermost to the outermost. A refusal by one is the caller's fault."""
    suffixes = [Decorator(class_path=f"{NEWER}Suffix", configuration={"suffix": suffix}) for suffix in "12"]
    gate = Decorator(class_path=f"{NEWER}Gate")
    served = Served(f"{NEWER}Echo", decorators=(*suffixes, gate))
    assert isinstance(served.model._model, Interface)
    assert served({**RECORD, "size": "large"})["name"] == "a12"
    assert served.refusal(RECORD)[0].endswith("Too small.")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{NEWER}Echo", "does not derive from ml_base.decorator.MLModelDecorator"),
        ("nowhere.Decorator", "there is no module 'nowhere'"),
    ],
)
def test_invalid_decorators_are_refused(path, message):
    """Decorators are checked like models."""
    with pytest.raises(StartError, match=message):
        adapter.load(f"{NEWER}Echo", decorators=(Decorator(class_path=path),))


def test_decorators_are_for_the_newer_interface():
    """A decorator refuses a model of the older interface by itself."""
    with pytest.raises(StartError, match="cannot wrap Iris: ValueError"):
        adapter.load("older_models.Iris", decorators=(Decorator(class_path=f"{NEWER}Gate"),))
