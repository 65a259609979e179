"""Tensors compared with the same rows as JSON: the model gets the same input to the bit."""

import base64
import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_grpc.choices import Batching
from mlflow_grpc.config import ModelConfig
from tests.parity.conftest import Oracle, oracle_of
from tests.parity.test_typed import in_any_order
from tests.parity.test_typed_batch import COLUMNS, FLOATS, INT64, as_json, echoed_rows, rows_of, split
from tests.support import tensors
from tests.support.depth import examples
from tests.support.servers import Caller, serving_models

Served = Callable[[str], tuple[tensors.TensorCaller, Oracle]]

DATATYPES = {
    "boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64", "string": "BYTES",
    "binary": "BYTES", "datetime": "BYTES",
}  # fmt: skip

ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(), "FP16": st.floats(width=16), "FP32": st.floats(width=32), "FP64": st.floats(),
    **{f"INT{bits}": st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}  # fmt: skip

several = settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module", params=[pytest.param(Batching.AUTO, marks=pytest.mark.deep), Batching.ON, Batching.OFF])
def served(request, zoo_path) -> Iterator[Served]:
    """The tensors of a model of the zoo, and MLflow's own answer for it."""
    with ExitStack() as stack:
        callers: dict[str, tuple[tensors.TensorCaller, Oracle]] = {}

        def get(name: str) -> tuple[tensors.TensorCaller, Oracle]:
            if name not in callers:
                path = zoo_path(name)
                model = ModelConfig(uri=str(path), name=name, batching=request.param, endpoint=True)
                call = stack.enter_context(Caller(stack.enter_context(serving_models([(model, None)])).address))
                callers[name] = (tensors.TensorCaller(call.channel), oracle_of(path))
            return callers[name]

        yield get


def echoed(response: Any) -> list[Any]:
    """Returns the model's description of its input, for each row."""
    (output,) = tensors.values(response).values()
    rows = output[0] if len(output) == 1 and isinstance(output[0], list) else output
    return [in_any_order(row) for row in rows]


def same(served: Served, name: str, payload: dict[str, Any], sent: Any) -> None:
    """Checks that both calls give the model the same input for each row, which it returns."""
    caller, oracle = served(name)
    assert echoed(caller.infer(sent)) == [in_any_order(row) for row in echoed_rows(oracle, payload)]


def with_columns(name: str, rows: dict[str, list[Any]], **more: Any) -> Any:
    """Makes a request with a tensor for each column, by the type at the end of its name."""
    inputs = []
    for column, values in rows.items():
        type_name = column.rpartition("_")[2]
        elements = as_json(column, values) if type_name == "datetime" else values
        inputs.append((column, DATATYPES[type_name], elements))
    return tensors.request(name, *inputs, **more)


@several
@given(rows_of({"a": INT64, "b": FLOATS}), st.booleans())
def test_numbers(served, rows, is_raw):
    """Columns that reach the model as arrays are equal to the last bit, with NaN, infinities and -0.0."""
    sent = tensors.request("rows_numbers", ("a", "INT64", rows["a"]), ("b", "FP64", rows["b"]), is_raw=is_raw)
    same(served, "rows_numbers", split(rows), sent)


@several
@given(rows_of(COLUMNS), st.booleans())
def test_every_column(served, rows, is_raw):
    """Columns of all scalar types get the answers that JSON gets, whether the request has raw or typed contents."""
    payload = split({name: as_json(name, values) for name, values in rows.items()})
    same(served, "rows_every_column", payload, with_columns("rows_every_column", rows, is_raw=is_raw))


@several
@given(rows_of(COLUMNS), st.booleans())
def test_content_types(served, rows, is_raw):
    """Content types as MLServer's clients send them describe the same elements."""
    payload = split({name: as_json(name, values) for name, values in rows.items()})
    texts = {**rows, "binary": [base64.b64encode(value) for value in rows["binary"]]}
    content_types = {"string": "str", "binary": "base64", "datetime": "datetime", "double": "np"}
    sent = with_columns("rows_every_column", texts, content_types=content_types, is_raw=is_raw, content_type="pd")
    same(served, "rows_every_column", payload, sent)


@several
@given(rows_of({f"may_{name}": COLUMNS[name] for name in COLUMNS}), st.sets(st.sampled_from(sorted(COLUMNS))))
def test_optional_columns(served, rows, absent):
    """A column that is left out has the same effect as in JSON."""
    count = len(rows["may_double"])
    present = {"need": [0.5] * count}
    present |= {column: values for column, values in rows.items() if column.removeprefix("may_") not in absent}
    payload = split({column: as_json(column, values) for column, values in present.items()})
    sent = with_columns("rows_optional", {column: present[column] for column in present if column != "need"})
    need = sent.inputs.add(name="need", datatype="FP64", shape=[count])
    sent.raw_input_contents.append(tensors.raw_of(need.datatype, present["need"]))
    same(served, "rows_optional", payload, sent)


@several
@given(
    st.sampled_from(sorted(ELEMENTS)).flatmap(
        lambda datatype: st.tuples(st.just(datatype), st.lists(ELEMENTS[datatype], min_size=1, max_size=3))
    ),
    st.sampled_from(["boolean", "integer", "long", "float", "double", "string", "binary", "datetime"]),
)
def test_any_numbers_for_any_column(served, elements, column):
    """Any datatype for any column has the outcome of JSON with the same numbers: the same input, or a refusal."""
    datatype, values = elements
    caller, oracle = served("rows_optional")
    rows = {"need": [0.5] * len(values), f"may_{column}": values}
    status, answer = oracle(json.dumps(split(rows)), "application/json")
    inputs = [("need", "FP64", rows["need"]), (f"may_{column}", datatype, values)]
    outcome, got = caller.outcome(tensors.request("rows_optional", *inputs))
    assert (outcome == "OK") == (status == 200), (got, answer)
    if status == 200:
        assert echoed(got) == [in_any_order(row) for row in json.loads(answer)["predictions"]]
    else:
        assert outcome == "INVALID_ARGUMENT"


@several
@given(
    st.sampled_from(sorted(ELEMENTS)).flatmap(
        lambda datatype: st.tuples(st.just(datatype), st.lists(ELEMENTS[datatype], min_size=2, max_size=2))
    ),
    st.sampled_from(["rows_tensor", "rows_tensor_ints"]),
)
def test_any_numbers_for_a_tensor(served, elements, name):
    """Any datatype for a tensor has the outcome of JSON with the same numbers."""
    datatype, values = elements
    caller, oracle = served(name)
    inputs = [values] if name == "rows_tensor" else values
    status, answer = oracle(json.dumps({"inputs": inputs}), "application/json")
    shape = [1, 2] if name == "rows_tensor" else [2]
    sent = tensors.request(name, ("input-0", datatype, values), shapes={"input-0": shape})
    outcome, got = caller.outcome(sent)
    assert (outcome == "OK") == (status == 200), (got, answer)
    if status == 200:
        assert echoed(got) == [in_any_order(row) for row in json.loads(answer)["predictions"]]


@pytest.mark.parametrize(
    ("name", "payload", "inputs", "more"),
    [
        ("rows_one_string", split({"q": ["", "a\0", "é"]}), [("q", "BYTES", ["", "a\0", "é"])], {}),
        ("rows_unnamed", {"dataframe_split": {"data": [[1, 0.5], [-2, 2.0]]}}, [("input-0", "INT64", [1, -2]), ("input-1", "FP64", [0.5, 2.0])], {}),
        ("rows_unnamed", {"dataframe_split": {"data": [[1, 0.5]]}}, [("any", "INT64", [1]), ("name", "FP64", [0.5])], {}),
        ("rows_unnamed_one", {"inputs": [1.5, 2.0]}, [("input-0", "FP64", [1.5, 2.0])], {}),
        ("rows_numbered", {"dataframe_split": {"columns": [0, 1], "data": [[1, 0.5]]}}, [("0", "INT64", [1]), ("1", "FP64", [0.5])], {}),
        ("rows_tensor", {"inputs": [[1.5, 2], [3, 4]]}, [("x", "FP32", [1.5, 2, 3, 4])], {"shapes": {"x": [2, 2]}}),
        ("rows_tensor", {"inputs": [[1.5, 2]]}, [("a", "FP64", [1.5, 2]), ("b", "FP64", [1.5, 2])], {"shapes": {"a": [1, 2]}, "content_type": "np"}),
        ("rows_tensor_ints", {"inputs": [0, 255]}, [("input-0", "UINT8", [0, 255])], {"shapes": {"input-0": [2]}}),
        (
            "rows_tensors",
            {"inputs": {"x": [[1, 2], [3, 4]], "mask": [0, 2**60]}},
            [("mask", "INT64", [0, 2**60]), ("x", "FP64", [1, 2, 3, 4])],
            {"shapes": {"x": [2, 2], "mask": [2]}, "content_type": "dict"},
        ),
        (
            "rows_tensors",
            {"inputs": {"x": [[1, 2], [3, 4]], "mask": [0, 2]}},
            [("mask", "INT8", [0, 2]), ("x", "UINT8", [1, 2, 3, 4])],
            {"shapes": {"x": [2, 2], "mask": [2]}},
        ),
        ("rows_tensor_named", {"inputs": {"text": ["a", ""]}}, [("text", "BYTES", ["a", ""])], {"shapes": {"text": [2]}}),
        (
            "rows_tensor_bytes",
            {"inputs": {"one": ["a", "b"], "two": [["c", "d"], ["e", "f"]]}},
            [("one", "BYTES", [b"a", b"b"]), ("two", "BYTES", [b"c", b"d", b"e", b"f"])],
            {"shapes": {"one": [2], "two": [2, 2]}},
        ),
        (
            "rows_structures",
            split({"numbers": [[1.5], []], "person": [{"name": "a", "age": 2**60}, {"name": ""}], "counts": [{"x": 1}, {}], "anything": [{"deep": [1, None]}, "word"]}),
            [("numbers", "BYTES", ["[1.5]", "[]"]), ("person", "BYTES", [f'{{"name": "a", "age": {2**60}}}', '{"name": ""}']), ("counts", "BYTES", ['{"x": 1}', "{}"]), ("anything", "BYTES", ['{"deep": [1, null]}', '"word"'])],
            {},
        ),
        (
            "rows_structures",
            split({"numbers": [[1.5, 2.0]], "person": [{"name": "a"}], "counts": [{}], "anything": ["word"]}),
            [("numbers", "FP32", [1.5, 2.0]), ("person", "BYTES", ['{"name": "a"}']), ("counts", "BYTES", ["{}"]), ("anything", "BYTES", ["word"])],
            {"shapes": {"numbers": [1, 2]}, "content_types": {"anything": "str", "person": "pd_json"}},
        ),
        ("rows_params", {**split({"a": [1.0]}), "params": {"temperature": 2, "label": "", "flag": True, "stops": ["z"], "since": "2021-01-01"}},
            [("a", "FP64", [1.0])], {"temperature": 2, "label": "", "flag": True, "stops": '["z"]', "since": "2021-01-01"}),
        ("rows_params", split({"a": [1.0]}), [("a", "FP64", [1.0])], {"priority": 1, "timeout": 5, "sequence_id": 3, "triton_enable_empty_final_response": True}),
        ("rows_optional", split({"need": [1.0, 2.0], "may_boolean": [True, None], "may_string": ["a", None]}),
            [("need", "FP64", [1.0, 2.0]), ("may_boolean", "BYTES", ["true", "null"]), ("may_string", "BYTES", ['"a"', "null"])],
            {"content_types": {"may_boolean": "pd_json", "may_string": "pd_json"}}),
        ("hint_str", {"inputs": ["a", ""]}, [("input-0", "BYTES", ["a", ""])], {}),
        ("hint_int", {"inputs": [1, 2**60]}, [("input-0", "INT64", [1, 2**60])], {}),
        ("hint_float", {"inputs": [1.5]}, [("input-0", "FP64", [1.5])], {}),
        ("hint_bytes", {"inputs": [base64.b64encode(b"\0\xff").decode()]}, [("input-0", "BYTES", [b"\0\xff"])], {}),
        ("hint_datetime", {"inputs": ["2020-02-29T12:00:00"]}, [("input-0", "BYTES", ["2020-02-29T12:00:00"])], {}),
        ("hint_person", {"inputs": [{"name": "a", "age": 3}]}, [("input-0", "BYTES", ['{"name": "a", "age": 3}'])], {}),
        ("hint_dict", {"inputs": [{"a": 1}]}, [("input-0", "BYTES", ['{"a": 1}'])], {}),
    ],
)  # fmt: skip
def test_other_signatures(served, name, payload, inputs, more):
    """Texts, unnamed columns, tensors, structures, params, nulls as JSON and type hints."""
    same(served, name, payload, tensors.request(name, *inputs, **more))


@pytest.mark.parametrize(
    ("payload", "inputs", "more"),
    [
        ({"inputs": [[1, 2], [3, 4]]}, [("x", "INT64", [1, 2, 3, 4])], {"shapes": {"x": [2, 2]}}),
        ({"inputs": ["a", "bc"]}, [("x", "BYTES", ["a", "bc"])], {"shapes": {"x": [2]}}),
        ({"inputs": ["a"]}, [("x", "BYTES", ["a"]), ("y", "INT64", [1])], {"shapes": {"x": [1]}, "content_type": "str"}),
        ({"inputs": {"x": [1.5], "y": ["a"]}}, [("x", "FP64", [1.5]), ("y", "BYTES", ["a"])], {"shapes": {"x": [1], "y": [1]}}),
        ({"inputs": {"x": [1.5]}}, [("x", "FP64", [1.5])], {"shapes": {"x": [1]}, "content_type": "dict"}),
        (split({"a": [1, 2], "b": ["x", "y"]}), [("a", "INT64", [1, 2]), ("b", "BYTES", ["x", "y"])], {"content_type": "pd"}),
        (split({"a": [[1.5, 2.5]]}), [("a", "FP64", [1.5, 2.5])], {"shapes": {"a": [1, 2]}, "content_type": "pd"}),
    ],
)  # fmt: skip
def test_a_model_without_a_signature(served, payload, inputs, more):
    """A model that declares no inputs gets an array, arrays by name or a frame, by the content type of the request."""
    caller, oracle = served("no_signature")
    status, answer = oracle(json.dumps(payload), "application/json")
    assert status == 200
    (output,) = tensors.values(caller.infer(tensors.request("no_signature", *inputs, **more))).values()
    assert output == [json.loads(answer)["predictions"]]


def test_datatypes_without_a_signature(served):
    """A model that declares no inputs gets numbers in the datatype of the tensor, which JSON cannot express."""
    caller, _ = served("no_signature")
    for datatype, dtype in (("FP32", "float32"), ("INT8", "int8"), ("FP16", "float16"), ("BF16", "float32")):
        data = [0x3F80] if datatype == "BF16" else [1]
        (output,) = tensors.values(caller.infer(tensors.request("no_signature", ("x", datatype, data)))).values()
        assert output[0]["input"]["dtype"] == dtype
        assert output[0]["input"]["cells"] in (["float 1.0"], ["int 1"])


@pytest.mark.parametrize("is_raw", [True, False])
def test_one_record_of_a_chat_model(served, is_raw):
    """A model that takes one record gets the same input as from JSON records."""
    caller, oracle = served("chat")
    messages = [{"role": "user", "content": "hi"}]
    payload = {"dataframe_records": [{"messages": messages, "temperature": 0.5}], "params": {"top_k": 2}}
    status, answer = oracle(json.dumps(payload), "application/json")
    assert status == 200, answer
    inputs: list[Any] = [("messages", "BYTES", [json.dumps(messages)]), ("temperature", "FP64", [0.5])]
    response = caller.infer(tensors.request("chat", *inputs, is_raw=is_raw, top_k=2))
    (output,) = tensors.values(response).values()
    assert in_any_order(output[0]["input"]) == in_any_order(json.loads(answer)["predictions"]["input"])


def test_an_array_is_the_models_own(served):
    """A model may write into its input."""
    caller, _ = served("no_signature")
    first = caller.infer(tensors.request("no_signature", ("x", "FP64", np.arange(4.0).tolist())))
    assert tensors.values(first)["output-0"][0]["input"]["cells"][3] == "float 3.0"


def refused(served: Served, name: str, *inputs: tuple[str, str, list[Any]], **more: Any) -> str:
    """Returns the message of a request that is refused."""
    status, message = served(name)[0].outcome(tensors.request(name, *inputs, **more))
    assert status == "INVALID_ARGUMENT", message
    return str(message)


@pytest.mark.parametrize(("name", "column"), [("no_signature", "x"), ("tensor", "input-0"), ("named_list", "vector")])
@pytest.mark.parametrize("shape", [[2**40, 0], [10**7, 0], [0, 2**40, 2**40], [2, 0, 2**20]], ids=str)
@pytest.mark.parametrize("content_type", ["pd", "np"])
def test_shapes_without_elements_take_no_memory(served, name, column, shape, content_type):
    """A declared shape of no elements makes no millions of empty lists, whatever the model gets."""
    sent = {"shapes": {column: shape}, "content_type": content_type}
    served(name)
    tracemalloc.start()
    try:
        assert "empty lists" in refused(served, name, (column, "FP32", []), **sent)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_empty_lists_in_an_array_column(served):
    """Rows of empty lists are those of JSON, and an array without elements has the shape of the tensor."""
    payload: dict[str, Any] = {"dataframe_records": [{"vector": []}, {"vector": []}]}
    same(
        served,
        "rows_named_list",
        payload,
        tensors.request("rows_named_list", ("vector", "FP64", []), shapes={"vector": [2, 0]}),
    )
    sent = tensors.request("no_signature", ("x", "FP64", []), shapes={"x": [65_536, 0]})
    assert echoed(served("no_signature")[0].infer(sent))[0]["input"]["shape"] == [65_536, 0]


def test_a_tensor_without_dimensions(served):
    """A scalar in place of a tensor is refused with the shape that the model takes."""
    assert "its shape is [], and the model takes [-1, 2]" in refused(
        served, "tensor", ("input-0", "FP32", [1]), shapes={"input-0": []}
    )


@pytest.mark.parametrize(("name", "column"), [("no_signature", "x"), ("tensor_named", "text")])
def test_one_long_text_among_short_ones(served, name, column):
    """An array gives each text the size of the longest, so one that needs more memory than the request is refused."""
    texts = ["x" * 100_000, *[""] * 99_999]
    assert "would take 40000000000 bytes" in refused(served, name, (column, "BYTES", texts), shapes={column: [100_000]})
