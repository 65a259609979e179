"""A decorator that does nothing around an MLflow model changes neither JSON nor messages."""

import json
import re
import textwrap
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from ml_base.decorator import MLModelDecorator
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, TensorSpec
from mlflow_grpc_client import _payloads

from mlflow_grpc import mlmodel as bridges
from mlflow_grpc.config import Configuration, Decorator, ModelConfig
from mlflow_grpc.engine.loading import load
from mlflow_grpc.errors import InvalidPayload, ModelFailed
from mlflow_grpc.settings import Settings
from mlflow_grpc.typed_contract import typed_contract
from tests.support.servers import ROOT, Caller, serving_models
from tests.support.typed import TypedCaller, batch_of, plain

NOTHING = (Decorator(class_path="ml_base.decorator.MLModelDecorator"),)
DOCS = (ROOT / "docs" / "models.md").read_text()
SETTINGS = Settings(model_uri="m")
MOMENT = "2020-02-29T12:00:00.123456789"


class Fixed(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
    """Predicts the same value for each row, in any form."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def predict(self, context, model_input, params=None):
        return self._make(len(model_input))


class RowTexts(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
    """Predicts its input as text."""

    def predict(self, context, model_input, params=None):
        return [repr(row) for row in model_input.to_dict("records")]


X: list[Any] = [ColSpec(DataType.double, "x")]
MODELS: dict[str, tuple[Any, list[Any], Any]] = {
    "binary": (Fixed(lambda n: pd.DataFrame({"b": [b"aaaa\xff"] * n})), X, [ColSpec(DataType.binary, "b")]),
    "binary_any": (Fixed(lambda n: pd.DataFrame({"b": [b"aaaa\xff"] * n})), X, None),
    "moments": (
        Fixed(lambda n: pd.DataFrame({"t": [pd.Timestamp(MOMENT)] * n, "list": [np.array([1.5])] * n})),
        X,
        [ColSpec(DataType.datetime, "t"), ColSpec(Array(DataType.double), "list")],
    ),
    "array": (Fixed(lambda n: np.array([[1.0, 2.0]] * n)), X, [ColSpec("double", "a"), ColSpec("double", "b")]),
    "named": (Fixed(lambda n: np.array([1.5] * n)), X, [ColSpec("double", "y")]),
    "unnamed": (Fixed(lambda n: np.array([7] * n)), X, [ColSpec("long")]),
    "unnamed_lists": (Fixed(lambda n: [[1.0, 2.0]] * n), X, [ColSpec(Array(DataType.double))]),
    "tensor": (Fixed(lambda n: np.array([[1.0, 2.0]] * n)), X, [TensorSpec(np.dtype("float64"), (-1, 2))]),
    "columns": (Fixed(lambda n: {"y": [1.0] * n, "l": [[1.0]] * n}), X, [ColSpec("double", "y"), ColSpec(Array(DataType.double), "l")]),
    "nothing": (
        Fixed(lambda n: pd.DataFrame({"s": [None] * n, "t": [pd.NaT] * n, "i": [pd.NA] * n})),
        X,
        [ColSpec("string", "s", required=False), ColSpec("datetime", "t", required=False), ColSpec("long", "i", required=False)],
    ),
    "told": (
        RowTexts(),
        [
            ColSpec("double", "a b", required=False), ColSpec("double", "a_b", required=False), ColSpec("integer", "copy"),
            ColSpec("float", "f"), ColSpec("binary", "data"), ColSpec("datetime", "t"),
        ],
        [ColSpec("string")],
    ),
}  # fmt: skip
OF_RECORDS: dict[str, Any] = {
    "binary_any": [{"prediction": {"b": "YWFhYf8=\n"}}, {"prediction": [{"b": "YWFhYf8=\n"}] * 2}],
    "columns": [{"y": 1.0, "l": [1.0]}, {"y": [1.0, 1.0], "l": [{"values": [1.0]}] * 2}],
}
"""Typed answers of models that have none without a decorator, because MLflow returns no records there."""
RECORDS: dict[str, dict[str, Any]] = {
    "told": {"a b": 1.0, "a_b": 2.0, "copy": 3, "f": 0.5, "data": "aGVsbG8=", "t": MOMENT},
}


class Counted(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
    """Predicts the number of rows for each row."""

    def predict(self, context, model_input, params=None):
        return [len(model_input)] * len(model_input)


OPTIONAL: list[Any] = [
    ColSpec("string", "city"), ColSpec("double", "x"), ColSpec("datetime", "t"), ColSpec("boolean", "b"),
    ColSpec("string", "note", required=False), ColSpec("datetime", "last", required=False),
]  # fmt: skip
MODELS |= {
    "lacking": (RowTexts(), OPTIONAL, [ColSpec("string")]),
    "counted": (Counted(), [*X, ColSpec("long", "n", required=False)], [ColSpec("long")]),
}


class Doubled(MLModelDecorator):  # type: ignore[misc]  # ml_base has no types.
    """Takes one record at a time, and doubles its prediction."""

    def predict(self, data):
        return self.output_schema.model_validate(2 * self._model.predict(data=data).root)


class Together(MLModelDecorator):  # type: ignore[misc]  # ml_base has no types.
    """Takes several records, and adds a hundred times their number."""

    def predict(self, data):
        return self.predict_many([data])[0]

    def predict_many(self, data):
        return [
            self.output_schema.model_validate(prediction.root + 100 * len(data))
            for prediction in self._model.predict_many(data)
        ]


class Lost(MLModelDecorator):  # type: ignore[misc]  # ml_base has no types.
    """Drops an output."""

    def predict_many(self, data):
        return self._model.predict_many(data)[1:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    for name, (model, inputs, outputs) in MODELS.items():
        signature = ModelSignature(Schema(inputs), Schema(outputs) if outputs else None)
        mlflow.pyfunc.save_model(path / name, python_model=model, signature=signature, pip_requirements=[])
    return path


def config(path: Any, name: str, **more: Any) -> ModelConfig:
    return ModelConfig(uri=str(path / name), name=name, endpoint=True, **more)


def answer(model_config: ModelConfig, record: Any) -> Any:
    loaded = load(model_config, SETTINGS)
    request = loaded.codec.decode(json.dumps({"dataframe_records": [record]}), None)
    return json.loads(loaded.codec.encode(loaded.model.predict(request.data, request.params), request))["predictions"]


@pytest.mark.parametrize(
    "name", ["binary", "binary_any", "moments", "named", "unnamed", "unnamed_lists", "tensor", "told"]
)
def test_json(folder, name):
    """Bytes, nanoseconds and columns whose names map to the same identifier equal the answers without a decorator."""
    record = RECORDS.get(name, {"x": 1.0})
    expected = answer(config(folder, name), record)
    decorated = answer(config(folder, name, decorators=NOTHING), record)
    if name == "named":
        assert (expected, decorated) == ([1.5], [{"y": 1.5}])
    else:
        assert decorated == expected


@pytest.mark.parametrize(
    ("name", "without", "expected"),
    [
        ("array", [[1.0, 2.0]], [{"a": 1.0, "b": 2.0}]),
        ("columns", {"y": [1.0], "l": [[1.0]]}, [{"y": 1.0, "l": [1.0]}]),
    ],
)
def test_json_of_unnamed_outputs(folder, name, without, expected):
    """Decorators get records, so unnamed outputs, or outputs without rows, have the names of the signature."""
    assert answer(config(folder, name), {"x": 1.0}) == without
    assert answer(config(folder, name, decorators=NOTHING), {"x": 1.0}) == expected


def answers(model_config: ModelConfig, payload: str) -> Any:
    loaded = load(model_config, SETTINGS)
    request = loaded.codec.decode(payload, None)
    return json.loads(loaded.codec.encode(loaded.model.predict(request.data, request.params), request))["predictions"]


def test_cells_without_a_value(folder):
    """A frame with NaN, None and NaT in required and optional columns reaches the model unchanged through a decorator
    that does nothing; NaN and None stay different."""
    texts: Any = ["2020-02-29T12:00:00", "2020-02-29T12:00:00.123456789", None, "2021-01-01"]
    moments = pd.to_datetime(texts, format="ISO8601")
    frame = pd.DataFrame(
        {
            "city": pd.Series(["Berlin", np.nan, None, "Paris"], dtype=object), "x": [1.5, np.nan, None, 2.0],
            "t": moments, "b": [True, False, True, False],
            "note": pd.Series([None, "x", np.nan, "y"], dtype=object), "last": moments[::-1],
        }
    )  # fmt: skip
    for rows in (frame, frame.head(1), frame[1:2], frame[2:3]):
        payload = _payloads.to_json(rows)
        expected = answers(config(folder, "lacking"), payload)
        assert len(expected) == len(rows)
        assert answers(config(folder, "lacking", decorators=NOTHING), payload) == expected


@pytest.mark.parametrize("text", ["x,n\n1.5,2\n,3\n", 'x\n""\n2\n'])
def test_empty_cells_in_csv(folder, text):
    """An empty cell of a required column in CSV is missing, and not absent, with and without a decorator."""
    of_both = []
    for decorators in ((), NOTHING):
        loaded = load(config(folder, "named", decorators=decorators), SETTINGS)
        request = loaded.codec.decode(text, "text/csv")
        of_both.append(loaded.codec.encode(loaded.model.predict(request.data, request.params), request))
    assert [json.loads(text)["predictions"] for text in of_both] == [[1.5, 1.5], [{"y": 1.5}] * 2]


def test_csv_without_names(folder):
    """The error has the names that were seen, also if there are no rows, and where to find a valid payload."""
    codec = load(config(folder, "counted", decorators=NOTHING), SETTINGS).codec
    for text in ("1.5,2\n", "1.5,2\n2.5,3\n"):
        with pytest.raises(
            InvalidPayload, match=r'Its first line is taken .* place: "1.5", "2"\. .*--describe'
        ) as raised:
            codec.decode(text, "text/csv")
        assert "1.5" not in raised.value.logged


def decorated(*names: str) -> tuple[Decorator, ...]:
    return tuple(Decorator(class_path=f"{__name__}.{name}") for name in names)


@pytest.mark.parametrize(
    ("decorators", "expected"),
    [
        (NOTHING, [3, 3, 3]),
        ((*NOTHING, *NOTHING), [3, 3, 3]),
        (decorated("Together"), [303, 303, 303]),
        ((*NOTHING, *decorated("Together"), *NOTHING), [303, 303, 303]),
        (decorated("Doubled"), [2, 2, 2]),
        # The inner decorator takes one record at a time and is not bypassed; the outer one takes all.
        (decorated("Doubled", "Together"), [302, 302, 302]),
        ((*decorated("Doubled"), *NOTHING, *decorated("Together")), [302, 302, 302]),
        (decorated("Together", "Doubled"), [202, 202, 202]),
    ],
)
def test_rows_pass_together_through_decorators_with_predict_many(folder, decorators, expected):
    """The model returns the number of rows that it got, and the decorators add theirs."""
    payload = json.dumps({"dataframe_records": [{"x": 1.0}] * 3})
    assert answers(config(folder, "counted", decorators=decorators), payload) == expected


def test_the_decorator_of_the_docs(folder):
    """The example for `predict_many` in docs/models.md works."""
    (block,) = re.findall(r"^  ```python\n(  class Capped.*?)^  ```", DOCS, re.MULTILINE | re.DOTALL)
    exec(textwrap.dedent(block).replace("100.0", "1.25"), globals())  # noqa: S102
    payload = json.dumps({"dataframe_records": [{"x": 1.0}] * 2})
    assert answers(config(folder, "named", decorators=decorated("Capped")), payload) == [{"y": 1.25}] * 2


def test_rows_that_mlflow_accepts_only_one_by_one(folder):
    """MLflow refuses a frame in which an integer is absent in one row, but accepts its rows one by one."""
    payload = json.dumps({"dataframe_records": [{"x": 1.0}, {"x": 1.0, "n": 2}]})
    assert answers(config(folder, "counted", decorators=NOTHING), payload) == [1, 1]


@pytest.mark.parametrize("decorators", [NOTHING, decorated("Doubled"), decorated("Together")])
@pytest.mark.parametrize("count", [1, 3])
def test_a_null_that_mlflow_refuses_is_named(folder, decorators, count):
    """MLflow refuses null in a column of integers. The error has its name, and the row if there are several."""
    rows = [{"x": 1.0}] * (count - 1) + [{"x": 1.0, "n": None}]
    with pytest.raises(InvalidPayload, match=r"n: is null; must be long; or leave it out") as raised:
        answers(config(folder, "counted", decorators=decorators), json.dumps({"dataframe_records": rows}))
    assert [violation.field for violation in raised.value.violations] == [f"[{count - 1}].n" if count > 1 else "n"]


def test_wrong_numbers_of_outputs_are_refused(folder):
    """A decorator with `predict_many` must return a list with an output for each record."""
    payload = json.dumps({"dataframe_records": [{"x": 1.0}] * 3})
    with pytest.raises(ModelFailed, match="predict_many returned 2 outputs for 3 records"):
        answers(config(folder, "counted", decorators=decorated("Lost")), payload)


def test_json_of_missing_values(folder):
    """Missing values of pandas are null."""
    assert answer(config(folder, "nothing", decorators=NOTHING), {"x": 1.0}) == [{"s": None, "t": None, "i": None}]


@pytest.mark.parametrize("name", MODELS)
def test_messages_are_the_same(folder, name):
    """Types, names, numbers and RPCs stay the same for every signature, so a decorator breaks no client."""
    texts = [
        typed_contract(SETTINGS, Configuration(models=(config(folder, name, **more),)), make_lock=False).text
        for more in ({}, {"decorators": NOTHING})
    ]
    services = [text[text.index("service ") :] for text in texts]
    messages = [[line for line in text.splitlines() if " = " in line and "//" not in line] for text in texts]
    assert messages[0] == messages[1]
    assert f"rpc {name}_predict_batch" in services[0]
    assert [line.strip() for line in services[0].splitlines() if "rpc" in line] == [
        line.strip() for line in services[1].splitlines() if "rpc" in line
    ]


def test_decorated_models_have_no_params(folder, tmp_path):
    """The interface of decorators has no params."""
    params = ParamSchema([ParamSpec("p", DataType.double, 1.0)])
    signature = ModelSignature(Schema([*X]), Schema([ColSpec("long")]), params)
    mlflow.pyfunc.save_model(
        tmp_path / "p", python_model=MODELS["unnamed"][0], signature=signature, pip_requirements=[]
    )
    assert load(config(tmp_path, "p"), SETTINGS).model.info.contract.params is not None
    assert load(config(tmp_path, "p", decorators=NOTHING), SETTINGS).model.info.contract.params is None


@pytest.fixture(scope="module")
def typed(folder):
    """One server with all models, each with and without the decorator."""
    without = [config(folder, name) for name in MODELS]
    around = [config(folder, name, decorators=NOTHING).model_copy(update={"name": f"d_{name}"}) for name in MODELS]
    with (
        serving_models([(model_config, None) for model_config in (*without, *around)]) as running,
        Caller(running.address) as call,
    ):
        yield TypedCaller(call.channel)


def outcomes(typed: TypedCaller, name: str, fields: Any) -> list[tuple[str, Any]]:
    record = typed.input(f"{name}_predict", fields)
    batch = batch_of(typed, name, [record, record])
    results = typed.outcome(f"{name}_predict", record), typed.outcome(f"{name}_predict_batch", batch)
    return [(status, plain(content) if status == "OK" else content) for status, content in results]


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("nothing", "lacking", "counted")])
def test_typed_answers(typed, name):
    """One record and a batch get the same messages."""
    fields = RECORDS.get(name, {"x": 1.0})
    fields = {key.replace("a_b", "a_b_2").replace(" ", "_"): value for key, value in fields.items()}
    if "t" in fields:
        fields["t"] += "Z"
    decorated = outcomes(typed, f"d_{name}", fields)
    assert [status for status, _ in decorated] == ["OK", "OK"]
    if name in OF_RECORDS:
        assert [content for _, content in decorated] == OF_RECORDS[name]
    else:
        assert decorated == outcomes(typed, name, fields)


def test_missing_values_in_messages(typed):
    """A missing value is left out, and is among the nulls of a batch."""
    record = typed.input("d_nothing_predict", {"x": 1.0})
    assert plain(typed("d_nothing_predict", record)) == {}
    batch = typed("d_nothing_predict_batch", batch_of(typed, "d_nothing", [record]))
    assert (batch.s_nulls[:], batch.t_nulls[:], batch.i_nulls[:]) == ([0], [0], [0])


def test_version(folder):
    """A decorator does not change the version of a model."""
    assert load(config(folder, "unnamed"), SETTINGS).model.version == ""
    assert load(config(folder, "unnamed", decorators=NOTHING), SETTINGS).model.version == ""


def test_as_mlmodel(folder):
    """For other services, bytes are bytes, and all columns have distinct names and attributes."""
    binary = bridges.as_mlmodel(str(folder / "binary"), qualified_name="b")
    output = binary.predict(binary.input_schema(x=1.0))
    assert output.b == b"aaaa\xff"
    assert json.loads(output.model_dump_json()) == answer(config(folder, "binary"), {"x": 1.0})[0]
    echo = bridges.as_mlmodel(str(folder / "told"), qualified_name="t")
    record = RECORDS["told"]
    data = echo.input_schema.model_validate({key: value for key, value in record.items() if key != "a b"})
    assert (data.a_b, data.a_b_2, data.t, data.data) == (2.0, None, pd.Timestamp(MOMENT), b"hello")
    by_attributes = echo.input_schema(a_b_2=1.0, a_b=2.0, field_copy=3, f=0.5, data="aGVsbG8=", t=pd.Timestamp(MOMENT))
    assert echo.predict(by_attributes).root == answer(config(folder, "told"), record)[0]
    with pytest.raises(ValueError, match="nanoseconds, which are supported for the years"):
        echo.input_schema.model_validate({**record, "t": "0900-01-01T00:00:00.123456789"})
