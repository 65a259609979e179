"""Output tensors compared with the JSON of the same predictions: no value changes, whatever the model returns."""

import base64
import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Object, Property

from mlflow_grpc.config import ModelConfig
from tests.parity.conftest import Oracle, oracle_of
from tests.support import tensors
from tests.support.servers import Caller, serving_models

FORMS: dict[str, Callable[[], Any]] = {
    "float64": lambda: np.array([0.1, np.nan, np.inf, -0.0]),
    "float32": lambda: np.array([[0.1, 2.5]], dtype=np.float32),
    "float16": lambda: np.array([0.1], dtype=np.float16),
    "int8": lambda: np.array([-128, 127], dtype=np.int8),
    "int64": lambda: np.array([2**60, -1]),
    "uint64": lambda: np.array([2**64 - 1], dtype=np.uint64),
    "bool": lambda: np.array([True, False]),
    "texts": lambda: np.array(["a", "é"]),
    "objects": lambda: np.array([["a", "b"], ["c", ""]], dtype=object),
    "columns": lambda: np.asfortranarray(np.arange(6.0).reshape(3, 2)),
    "numbers": lambda: [1, 2**62],
    "huge": lambda: [1, 2**70],
    "mixed": lambda: [1, 2.5, None],
    "list_of_texts": lambda: ["a", "b"],
    "booleans_among_numbers": lambda: [0.5, 3, True],
    "rows_with_booleans": lambda: [[0.5, True], [1, 2.5]],
    "integers_beyond_doubles": lambda: pd.DataFrame({"a": np.array([0.5, 1.5], np.float16), "b": np.array([1, 2**64 - 1], np.uint64)}),
    "half_a_character": lambda: ["\ud800", "b"],
    "half_a_character_in_an_array": lambda: np.array(["a", "\udfff"], dtype=object),
    "records_of_other_keys": lambda: [{"a": 1, "b": "x"}, {"a": 2}, {"a": None, "b": "z"}],
    "nothing": lambda: None,
    "text": lambda: "a word",
    "number": lambda: 3,
    "lists": lambda: [[1, 2], [3]],
    "records": lambda: [{"a": 1}, {"a": None}],
    "series": lambda: pd.Series([1.5, 2.5], name="s"),
    "frame": lambda: pd.DataFrame({"x": [1, 2], "y": [0.5, np.nan]}, index=[7, 8]),
    "mixed_frame": lambda: pd.DataFrame(
        {"t": ["a", "b"], "f": [True, False], "n": [1, 2], "o": ["x", 1], "w": pd.to_datetime(["2020-01-01", "2021-02-03T04:05:06.7"], format="ISO8601")}
    ),
    "nullable_frame": lambda: pd.DataFrame({"n": pd.array([1, None], dtype="Int64"), "m": pd.array([1, 2], dtype="Int64")}),
    "numbered_frame": lambda: pd.DataFrame([[1, 2.5], [3, 4.5]]),
    "arrays": lambda: {"x": np.arange(4.0).reshape(2, 2), "y": np.array([1, 2])},
    "lists_by_name": lambda: {"x": [1, 2], "y": "z"},
    "every": lambda: pd.DataFrame(
        {
            "boolean": [True, False], "integer": [1, -2], "long": [2**60, 0], "float": np.array([0.1, 1], dtype=np.float32),
            "double": [0.1, np.nan], "string": ["a", ""], "datetime": pd.to_datetime(["2020-01-01", "2021-02-03T04:05:06"], format="ISO8601"),
            "array": [[0.5, 1.5], []], "object": [{"k": "v"}, {"k": ""}], "any": [1, "x"],
        }
    ),
    "every_as_records": lambda: [
        {"boolean": True, "integer": 1, "long": 2**60, "float": 0.5, "double": 0.1, "string": "a", "datetime": "2020-01-01T00:00:00",
         "array": [0.5], "object": {"k": "v"}, "any": None}
    ],
}  # fmt: skip


def _schemas() -> dict[str, Schema | None]:
    types = [(DataType[name], name) for name in DATATYPES]
    return {
        "undeclared": None,
        "one_double": Schema([ColSpec(DataType.double)]),
        "one_text": Schema([ColSpec(DataType.string)]),
        "one_integer": Schema([ColSpec(DataType.integer, "label")]),
        "two": Schema([ColSpec(DataType.double, "p"), ColSpec(DataType.double, "q")]),
        "unnamed": Schema([ColSpec(DataType.long), ColSpec(DataType.double)]),
        "tensor": Schema([TensorSpec(np.dtype("float32"), (-1, 2))]),
        "tensors": Schema([TensorSpec(np.dtype("float64"), (-1, 2), "x"), TensorSpec(np.dtype("int64"), (-1,), "y")]),
        "text_tensor": Schema([TensorSpec(np.dtype("object"), (-1,))]),
        "every": Schema(
            [
                *(ColSpec(data_type, name) for data_type, name in types),
                ColSpec(Array(DataType.double), "array"),
                ColSpec(Object([Property("k", DataType.string)]), "object"),
                ColSpec(AnyType(), "any", required=False),
            ]
        ),
    }


DATATYPES = {
    "boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64", "string": "BYTES",
    "datetime": "BYTES",
}  # fmt: skip

Served = Callable[[str], tuple[tensors.TensorCaller, Oracle]]


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    """Models that return the form that their input names, with several output schemas, and MLflow's own answers."""
    forms = FORMS

    class Returns(PythonModel):
        def predict(self, context, model_input, params=None):
            return forms[model_input["form"].iloc[0]]()

    folder = tmp_path_factory.mktemp("returns")
    inputs = Schema([ColSpec(DataType.string, "form")])
    configs = []
    for name, outputs in _schemas().items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow recommends an input example.
            mlflow.pyfunc.save_model(
                folder / name,
                python_model=Returns(),
                signature=ModelSignature(inputs, outputs),
                pip_requirements=["mlflow"],
            )
        configs.append((ModelConfig(uri=str(folder / name), name=name, endpoint=True), None))
    oracles: dict[str, Oracle] = {}
    with serving_models(configs) as server, Caller(server.address) as call:
        caller = tensors.TensorCaller(call.channel)

        def get(name: str) -> tuple[tensors.TensorCaller, Oracle]:
            if name not in oracles:
                oracles[name] = oracle_of(folder / name)
            return caller, oracles[name]

        yield get


def rebuilt(response: Any, predictions: Any) -> Any:
    """Returns the outputs of a response in the form of the predictions in JSON."""
    read, arrays = tensors.values(response), tensors.arrays(response)
    columns = {name: values for name, values in read.items() if len(values) == max(map(len, read.values()))}
    if len(read) == 1 and arrays[next(iter(read))].shape == (1, 1) and tensors.content_type(response) == "pd_json":
        return next(iter(read.values()))[0]
    if isinstance(predictions, dict):
        return {name: array.tolist() for name, array in arrays.items()}
    if isinstance(predictions, list) and predictions and isinstance(predictions[0], dict):
        names = list(predictions[0])
        by_name = columns if set(columns) == set(names) else dict(zip(names, columns.values(), strict=True))
        return [dict(zip(names, row, strict=True)) for row in zip(*(by_name[name] for name in names), strict=True)]
    if len(read) > 1:
        return [list(row) for row in zip(*columns.values(), strict=True)]
    (name,) = read
    shape = arrays[name].shape
    array = np.empty(len(read[name]), dtype=object)
    for index, value in enumerate(read[name]):
        array[index] = value
    return array.reshape(shape if shape[1:] != (1,) else -1).tolist()


def exact(value: Any) -> Any:
    """Returns a JSON value in which equal numbers have one form, to the last bit."""
    if isinstance(value, dict):
        return {name: exact(item) for name, item in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value).hex() if is_number and (isinstance(value, float) or int(float(value)) == value) else value


CASES = [
    ("undeclared", "float64", {"output-0": ("FP64", [4])}),
    ("undeclared", "float32", {"output-0": ("FP32", [1, 2])}),
    ("undeclared", "float16", {"output-0": ("FP16", [1])}),
    ("undeclared", "int8", {"output-0": ("INT8", [2])}),
    ("undeclared", "int64", {"output-0": ("INT64", [2])}),
    ("undeclared", "uint64", {"output-0": ("UINT64", [1])}),
    ("undeclared", "bool", {"output-0": ("BOOL", [2])}),
    ("undeclared", "texts", {"output-0": ("BYTES", [2])}),
    ("undeclared", "objects", {"output-0": ("BYTES", [2, 2])}),
    ("undeclared", "columns", {"output-0": ("FP64", [3, 2])}),
    ("undeclared", "numbers", {"output-0": ("INT64", [2])}),
    ("undeclared", "huge", {"output-0": ("BYTES", [2])}),
    ("undeclared", "list_of_texts", {"output-0": ("BYTES", [2])}),
    ("undeclared", "nothing", {"output-0": ("BYTES", [1, 1])}),
    ("undeclared", "text", {"output-0": ("BYTES", [1, 1])}),
    ("undeclared", "number", {"output-0": ("BYTES", [1, 1])}),
    ("undeclared", "lists", {"output-0": ("BYTES", [1, 1])}),
    ("undeclared", "records", {"output-0": ("BYTES", [1, 1])}),
    ("undeclared", "frame", {"x": ("INT64", [2, 1]), "y": ("FP64", [2, 1])}),
    ("undeclared", "mixed_frame", {"t": ("BYTES", [2, 1]), "f": ("BOOL", [2, 1]), "n": ("INT64", [2, 1]), "o": ("BYTES", [2, 1]), "w": ("BYTES", [2, 1])}),
    ("undeclared", "nullable_frame", {"n": ("BYTES", [2, 1]), "m": ("INT64", [2, 1])}),
    ("undeclared", "numbered_frame", {"0": ("INT64", [2, 1]), "1": ("FP64", [2, 1])}),
    ("undeclared", "arrays", {"x": ("FP64", [2, 2]), "y": ("INT64", [2])}),
    ("undeclared", "lists_by_name", {"output-0": ("BYTES", [1, 1])}),
    ("undeclared", "booleans_among_numbers", {"output-0": ("BYTES", [3])}),
    ("undeclared", "half_a_character", {"output-0": ("BYTES", [2])}),
    ("undeclared", "half_a_character_in_an_array", {"output-0": ("BYTES", [2])}),
    ("one_double", "half_a_character", {"output-0": ("BYTES", [2, 1])}),
    ("one_double", "half_a_character_in_an_array", {"output-0": ("BYTES", [2, 1])}),
    ("one_double", "booleans_among_numbers", {"output-0": ("BYTES", [3, 1])}),
    ("text_tensor", "half_a_character", {"output-0": ("BYTES", [2])}),
    ("tensor", "rows_with_booleans", {"output-0": ("BYTES", [2, 2])}),
    ("one_double", "float64", {"output-0": ("FP64", [4, 1])}),
    ("one_double", "int64", {"output-0": ("INT64", [2, 1])}),
    ("one_double", "int8", {"output-0": ("FP64", [2, 1])}),
    ("one_double", "texts", {"output-0": ("BYTES", [2, 1])}),
    ("one_integer", "int64", {"label": ("INT64", [2, 1])}),
    ("one_integer", "int8", {"label": ("INT32", [2, 1])}),
    ("two", "columns", {"p": ("FP64", [3, 1]), "q": ("FP64", [3, 1])}),
    ("two", "numbered_frame", {"p": ("FP64", [2, 1]), "q": ("FP64", [2, 1])}),
    ("unnamed", "numbered_frame", {"output-0": ("INT64", [2, 1]), "output-1": ("FP64", [2, 1])}),
    ("unnamed", "frame", {"output-0": ("INT64", [2, 1]), "output-1": ("FP64", [2, 1])}),
    ("tensor", "float32", {"output-0": ("FP32", [1, 2])}),
    ("tensor", "columns", {"output-0": ("FP32", [3, 2])}),
    ("tensor", "objects", {"output-0": ("BYTES", [2, 2])}),
    ("tensors", "arrays", {"x": ("FP64", [2, 2]), "y": ("INT64", [2])}),
    ("text_tensor", "texts", {"output-0": ("BYTES", [2])}),
    ("text_tensor", "list_of_texts", {"output-0": ("BYTES", [2])}),
    ("every", "every", {**{name: (datatype, [2, 1]) for name, datatype in DATATYPES.items()}, "array": ("BYTES", [2, 1]), "object": ("BYTES", [2, 1]), "any": ("BYTES", [2, 1])}),
    ("every", "every_as_records", {**{name: (datatype, [1, 1]) for name, datatype in DATATYPES.items()}, "array": ("BYTES", [1, 1]), "object": ("BYTES", [1, 1]), "any": ("BYTES", [1, 1])}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "form", "described"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_outputs(served, name, form, described):
    """Names, datatypes and shapes are the documented ones, and the values are those of the JSON answer."""
    caller, oracle = served(name)
    response = caller.infer(tensors.request(name, ("form", "BYTES", [form])))
    outputs = {output.name: (output.datatype, list(output.shape)) for output in response.outputs}
    assert outputs == described
    status, answer = oracle(json.dumps({"dataframe_records": [{"form": form}]}), "application/json")
    assert status == 200
    predictions = json.loads(answer)["predictions"]
    assert exact(rebuilt(response, predictions)) == exact(predictions)


@pytest.mark.parametrize("name", ["one_double", "one_text", "tensor", "text_tensor"])
def test_records_of_other_keys(served, name):
    """Records that are no rows of the outputs are their JSON, and the shorter ones among them keep their names."""
    caller, oracle = served(name)
    response = caller.infer(tensors.request(name, ("form", "BYTES", ["records_of_other_keys"])))
    _, answer = oracle(json.dumps({"dataframe_records": [{"form": "records_of_other_keys"}]}), "application/json")
    (values,) = tensors.values(response).values()
    assert (values[0] if len(values) == 1 else values) == json.loads(answer)["predictions"]


def test_integers_beyond_doubles(served):
    """A frame for one tensor of doubles keeps integers that a double does not hold."""
    caller, oracle = served("tensor")
    response = caller.infer(tensors.request("tensor", ("form", "BYTES", ["integers_beyond_doubles"])))
    _, answer = oracle(json.dumps({"dataframe_records": [{"form": "integers_beyond_doubles"}]}), "application/json")
    (values,) = tensors.values(response).values()
    assert exact(values) == exact([row[name] for row in json.loads(answer)["predictions"] for name in "ab"])


@pytest.mark.parametrize(("name", "form"), [("undeclared", "mixed"), ("undeclared", "series"), ("one_double", "mixed")])
def test_outputs_in_another_form(served, name, form):
    """A null among numbers is NaN, and a Series is a tensor without the records that JSON makes of it."""
    caller, _ = served(name)
    (array,) = tensors.arrays(caller.infer(tensors.request(name, ("form", "BYTES", [form])))).values()
    expected = [1.5, 2.5] if form == "series" else [1.0, 2.5, np.nan]
    np.testing.assert_array_equal(array.ravel(), expected)


def test_requested_outputs_and_contents(served):
    """Only the requested outputs come back, in their order, in contents if the inputs were there."""
    caller, _ = served("every")
    for is_raw in (True, False):
        names = ["string", "long"]
        sent = tensors.request("every", ("form", "BYTES", ["every"]), outputs=names, is_raw=is_raw)
        response = caller.infer(sent)
        assert [output.name for output in response.outputs] == names
        assert len(response.raw_output_contents) == (2 if is_raw else 0)
        assert tensors.values(response) == {"string": ["a", ""], "long": [2**60, 0]}
    sent = tensors.request("every", ("form", "BYTES", ["every"]), outputs=["string"])
    sent.outputs[0].parameters["content_type"].string_param = "base64"
    encoded = tensors.arrays(caller.infer(sent))["string"].ravel().tolist()
    assert encoded == [base64.b64encode(b"a"), b""]


def test_metadata_agrees_with_the_response(served):
    """Datatypes and shapes of the metadata are those of the response, for a model that returns what it declares."""
    caller, _ = served("every")
    metadata = caller.call("ModelMetadata", tensors.message("ModelMetadataRequest", name="every"))
    response = caller.infer(tensors.request("every", ("form", "BYTES", ["every"])))
    declared = {output.name: (output.datatype, list(output.shape)) for output in metadata.outputs}
    got = {output.name: (output.datatype, [-1, *output.shape[1:]]) for output in response.outputs}
    assert declared == got
    for output in response.outputs:
        described = metadata.properties.get(f"outputs.{output.name}.content_type", "")
        if output.name != "any":
            assert output.parameters["content_type"].string_param == described
