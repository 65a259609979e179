"""The fast decoder returns the result of MLflow's parser and checks, or nothing."""

import json
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array

from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.payload.fast_json import bulk
from mlflow_grpc.payload.fast_json.decoders import NotPlain, decoder_for
from tests.support.depth import examples, sample
from tests.support.payloads import SCALARS, TEXTS, payloads, plain_payloads

PLAIN = {"boolean": True, "integer": 3, "long": 2**60, "float": 0.1, "double": 0.1, "string": "é"}

SCHEMAS = {
    "doubles": Schema([ColSpec(DataType.double, name) for name in "abc"]),
    "longs": Schema([ColSpec(DataType.long, name) for name in "ab"]),
    "integers": Schema([ColSpec(DataType.integer, name) for name in "ab"]),
    "floats": Schema([ColSpec(DataType.float, name) for name in "ab"]),
    "booleans": Schema([ColSpec(DataType.boolean, name) for name in "ab"]),
    "strings": Schema([ColSpec(DataType.string, name) for name in "ab"]),
    "mixed": Schema([ColSpec(DataType[type_name], type_name) for type_name in PLAIN]),
    "optional doubles": Schema([ColSpec(DataType.double, name, required=False) for name in "abc"]),
    "required and optional": Schema([ColSpec(DataType.double, name, required=name == "b") for name in "abc"]),
    "optional mixed": Schema([ColSpec(DataType[type_name], type_name, required=False) for type_name in PLAIN]),
}


def metadata(schema):
    return Model(signature=ModelSignature(inputs=schema))


def mlflow_input(text, meta):
    """Returns the model's input by MLflow, or None if MLflow would not call the model."""
    try:
        parsed = internals.parse_json(text.encode(), meta, meta.get_input_schema())
        data, params = mlflow.pyfunc._validate_prediction_input(
            parsed.data, parsed.params, meta.get_input_schema(), None, "mlflow.sklearn"
        )
    except Exception:
        return None
    return data, params, parsed.is_unified_llm_input


def agree(decoder, meta, text):
    """Returns True if the text is plain. Both inputs must then be equal, with dtypes, index and memory layout."""
    rows = decoder.decode(text)
    if rows is None:
        return False
    expected = mlflow_input(text, meta)
    assert expected is not None, text
    frame, params, llm = expected
    assert (params, llm) == (None, False)
    ours = decoder.table([rows])
    if isinstance(frame, np.ndarray):
        assert (ours.dtype, ours.shape, ours.tobytes()) == (frame.dtype, frame.shape, frame.tobytes())
        assert ours.flags.c_contiguous == frame.flags.c_contiguous
        return True
    pd.testing.assert_frame_equal(ours, frame, check_exact=True, check_column_type=True, check_index_type=True)
    assert type(ours.index) is type(frame.index)
    if ours.dtypes.nunique() == 1:
        assert ours.to_numpy().flags.f_contiguous == frame.to_numpy().flags.f_contiguous
        if ours.to_numpy().dtype != object:  # The bytes of object arrays are addresses.
            assert ours.to_numpy().tobytes() == frame.to_numpy().tobytes()
    return True


@pytest.fixture
def bulk_always(monkeypatch):
    """Reads small payloads by the reader for large ones too."""
    monkeypatch.setattr(bulk, "MIN_CHARACTERS", 0)


@pytest.fixture(params=SCHEMAS)
def decoder(request):
    meta = metadata(SCHEMAS[request.param])
    fast_decoder = decoder_for(meta)
    return fast_decoder, meta


@pytest.mark.parametrize("rows", [1, 3])
def test_plain_payloads_of_every_format_take_the_fast_path(decoder, rows):
    """The fast path applies, and its frame is MLflow's."""
    fast_decoder, meta = decoder
    row = {spec.name: PLAIN[spec.type.name] for spec in meta.get_input_schema().inputs}
    backwards = dict(reversed(row.items()))
    for text in (
        json.dumps({"dataframe_split": {"columns": list(row), "data": [list(row.values())] * rows}}),
        json.dumps({"dataframe_split": {"data": [list(backwards.values())] * rows, "columns": list(backwards)}}),
        json.dumps({"dataframe_records": [row] * rows}),
        json.dumps({"dataframe_records": [row, backwards]}),
        json.dumps({"inputs": {name: [value] * rows for name, value in backwards.items()}}),
        json.dumps({"instances": [row] * rows}),
    ):
        assert agree(fast_decoder, meta, text), text


def test_odd_cells_agree_or_are_left_to_mlflow(decoder):
    """Every odd scalar in every column and format is decoded as by MLflow, or left to MLflow."""
    fast_decoder, meta = decoder
    row = {spec.name: PLAIN[spec.type.name] for spec in meta.get_input_schema().inputs}
    for value in sample((*SCALARS, 2**24 + 1, 1e-46, 3.4028235677973366e38), " ".join(row), share=3):
        for name in row:
            odd = {**row, name: value}
            agree(
                fast_decoder,
                meta,
                json.dumps({"dataframe_split": {"columns": list(row), "data": [list(odd.values())]}}),
            )
            agree(fast_decoder, meta, json.dumps({"dataframe_records": [row, odd]}))
            agree(fast_decoder, meta, json.dumps({"inputs": {key: [cell] for key, cell in odd.items()}}))
            agree(fast_decoder, meta, json.dumps({"instances": [odd, row]}))


def test_odd_texts_agree_or_are_left_to_mlflow(decoder):
    """Every odd document is decoded as by MLflow, or left to MLflow."""
    fast_decoder, meta = decoder
    for text in TEXTS:
        agree(fast_decoder, meta, text)


@pytest.mark.usefixtures("bulk_always")
def test_odd_texts_agree_or_are_left_to_mlflow_by_simdjson():
    """Every odd document is decoded by simdjson as by MLflow, or left to MLflow."""
    for schema in (SCHEMAS["doubles"], Schema([TensorSpec(np.dtype("float64"), (-1, 3))])):
        meta = metadata(schema)
        fast_decoder = decoder_for(meta)
        for text in TEXTS:
            agree(fast_decoder, meta, text)


@pytest.mark.parametrize(("name", "threshold"), [*((name, None) for name in SCHEMAS), ("doubles", 0)])
def test_generated_payloads_agree_or_are_left_to_mlflow(name, threshold, monkeypatch):
    """Payloads that hypothesis generates are decoded as by MLflow, or left to MLflow."""
    if threshold is not None:
        monkeypatch.setattr(bulk, "MIN_CHARACTERS", threshold)
    meta = metadata(SCHEMAS[name])
    fast_decoder = decoder_for(meta)
    taken = []

    @settings(
        max_examples=examples(300),
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def check(data):
        text = data.draw(plain_payloads(meta.get_input_schema()) | payloads(meta.get_input_schema()))
        if agree(fast_decoder, meta, text):
            taken.append(text)

    check()
    assert taken


TENSORS = {
    "float64 x 4": TensorSpec(np.dtype("float64"), (-1, 4)),
    "float32 x 2 x 3": TensorSpec(np.dtype("float32"), (-1, 2, 3)),
    "float64": TensorSpec(np.dtype("float64"), (-1,)),
    "int64 x 2": TensorSpec(np.dtype("int64"), (-1, 2)),
    "uint8 x 2": TensorSpec(np.dtype("uint8"), (-1, 2)),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_agree_or_are_left_to_mlflow(name):
    """Tensors with odd scalars, other shapes, and nesting instead of numbers are decoded as by MLflow, or left to it."""
    spec = TENSORS[name]
    meta = metadata(Schema([spec]))
    fast_decoder = decoder_for(meta)
    plain = (np.arange(np.prod(spec.shape[1:]) * 3).reshape(3, *spec.shape[1:]) + (0.1 if "f" in name else 0)).tolist()
    for key in ("inputs", "instances"):
        assert agree(fast_decoder, meta, json.dumps({key: plain}))
        assert agree(fast_decoder, meta, json.dumps({key: np.asarray(plain, dtype=int).tolist()}))
        for value in (*SCALARS, 127, 128, 255, 256, 2**24 + 1, 2**53, 2**53 + 1, 3.5e38, 1e-46, 0.1, -0.0):
            for places in ([1], range(np.size(plain))):
                mixed = np.array(plain, dtype=object)
                for index in places:
                    mixed[np.unravel_index(index, mixed.shape)] = value
                agree(fast_decoder, meta, json.dumps({key: mixed.tolist()}))
        odds: list[object] = [
            [],
            [[]],
            [plain],
            plain[0],
            [plain[0], []],
            [*plain, 1],
            {"a": plain},
            None,
            [None],
            [{"a": 1}],
        ]
        for odd in odds:
            agree(fast_decoder, meta, json.dumps({key: odd}))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (TensorSpec(np.dtype("float64"), (-1, -1)), r"a tensor of type float64 and shape \(-1, -1\)"),
        (TensorSpec(np.dtype("float64"), (2, 2)), r"a tensor of type float64 and shape \(2, 2\)"),
        (TensorSpec(np.dtype("float64"), (-1, 2), "named"), "named tensors"),
        (TensorSpec(np.dtype("bool"), (-1, 2)), "a tensor of type bool"),
        (TensorSpec(np.dtype("object"), (-1,)), "a tensor of type object"),
    ],
)
def test_tensors_that_are_not_plain(spec, reason):
    """Tensors with names, other types or no fixed row shape have no fast path, and the reason names it."""
    with pytest.raises(NotPlain, match=f"the signature has {reason}"):
        decoder_for(metadata(Schema([spec])))


ODD_ROWS: list[object] = [
    [True, 1.0, 2.0], [None, 1.0, 2.0], ["1", 1.0, 2.0], [2**53 - 1, 1, 2], [2**53 + 1, 1, 2], [-(2**63), 1, 2],
    [2**64, 1, 2], [1e300, 1, 2], [-0.0, 0, 2], [[1.0], 1.0, 2.0], [[], [1.0, 2.0], 3.0], [1.0, 2.0], [1.0] * 4, [],
    1.0, "abc", "[", {"a": 1.0, "b": 2.0, "c": 3.0}, [{}, 1.0, 2.0], None,
]  # fmt: skip


BEGINNINGS = [
    '{"dataframe_split": {"columns": ["a", "b", "c"], "data": ',
    '{"dataframe_split":{"columns":["c","a","b"],"data":',
    ' {\n"dataframe_split" : {"columns": ["a", "\\u0062", "c"]\t,"data":\r\n',
    '{"dataframe_split": {"columns": ["a", "b", "c", "d"], "data": ',
    '{"dataframe_split": {"columns": ["a", "b", "c\\"], \\"data\\":"], "data": ',
    '{"dataframe_split": {"columns": ["a", "b", 1], "data": ',
    '{"dataframe_split": {"data": [[1.5, 2.5, 3.5]], "columns": ["a", "b", "c"], "data": ',
]
ENDS = [
    "[[1.5, 2, -3e5]]}}", "[[0.5, 1.5, 2.5], [1, 2, 3]]}}", " [ [1.5,2.5,3.5] ] }}", "[[1.5, 2.5, 3.5]]}} ", "[]}}", "[[]]}}",
    "[[1.5, 2.5]]}}", "[[1.5, 2.5, 3.5], [1]]}}", "[1.5, 2.5, 3.5]}}", "[[1.5, 2.5, null]]}}", "[[1.5, 2.5, NaN]]}}",
    '[[1.5, 2.5, "3"]]}}', "null}}", "}}", "", '[[1.5, 2.5, 3.5]], "columns": ["c", "b", "a"]}}', "[[1.5, 2.5, 3.5]]}, {}}",
    '[[1.5, 2.5, 3.5]], "index": [7]}}', '[[1.5, 2.5, 3.5]]}, "params": {}}', "[[1.5, 2.5, 3.5]]}}}}", "[[1.5, 2.5, 3.5]]",
    '[[1.5, 2.5, 3.5]], "data": [[4.5, 5.5, 6.5]]}}', "[[1.5, 2.5, 3.5]]]}}", "[[1e400, 2.5, 3.5]]}}", "{}}}",
]  # fmt: skip


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_split_tables_agree_or_are_left_to_mlflow(beginning):
    """Tables with odd names, and with odd values instead of rows, are decoded as by MLflow, or left to it."""
    meta = metadata(SCHEMAS["doubles"])
    fast_decoder = decoder_for(meta)
    assert agree(fast_decoder, meta, beginning + ENDS[0]) == (beginning in (*BEGINNINGS[:3], BEGINNINGS[-1]))
    for end in ENDS:
        agree(fast_decoder, meta, beginning + end)


@pytest.mark.usefixtures("bulk_always")
@pytest.mark.parametrize("index", [0, 2, 4])
def test_large_tables_agree_or_are_left_to_mlflow(index):
    """Odd rows among others, every order of columns, and names with brackets are decoded as by MLflow, or left to it."""
    rows = np.random.default_rng(0).normal(size=(4, 3)).tolist()
    for names in ("abc", "a[c", "a{c", "ab\u005d"):
        meta = metadata(Schema([ColSpec(DataType.double, name) for name in names]))
        fast_decoder = decoder_for(meta)
        for order in (names, names[::-1]):
            assert agree(fast_decoder, meta, json.dumps({"dataframe_split": {"data": rows, "columns": list(order)}}))
        columns = list(names)
        for odd in ODD_ROWS:
            data = [*rows[:index], odd, *rows[index:]]
            for outer in (
                {"dataframe_split": {"columns": columns, "data": data}},
                {"dataframe_split": {"columns": columns, "data": data, "index": list(range(5))}},
                {"dataframe_split": {"columns": columns, "data": data}, "params": {}},
                {"dataframe_split": {"columns": columns[1:], "data": data}},
                {"dataframe_split": {"columns": [*columns, "d"], "data": data}},
                {"dataframe_split": {"columns": [columns], "data": data}},
                {"dataframe_split": data},
                {"dataframe_split": {"columns": data, "data": columns}},
                [data],
                data,
            ):
                agree(fast_decoder, meta, json.dumps(outer))
                agree(fast_decoder, meta, json.dumps(outer).replace("[", "\\u005b", 1))
    agree(fast_decoder, meta, "\ufeff" + json.dumps({"dataframe_split": {"data": rows, "columns": columns}}))


@pytest.mark.usefixtures("bulk_always")
@pytest.mark.parametrize("index", [0, 2, 4])
def test_large_tensors_agree_or_are_left_to_mlflow(index):
    """Large tensors with odd rows are decoded as by MLflow, or left to it."""
    rows = np.random.default_rng(0).normal(size=(4, 3)).tolist()
    meta = metadata(Schema([TensorSpec(np.dtype("float64"), (-1, 3))]))
    fast_decoder = decoder_for(meta)
    for key in ("inputs", "instances"):
        assert agree(fast_decoder, meta, json.dumps({key: rows}))
        for odd in ODD_ROWS:
            agree(fast_decoder, meta, json.dumps({key: [*rows[:index], odd, *rows[index:]]}))
        agree(fast_decoder, meta, json.dumps({key: [rows]}))


@pytest.mark.parametrize("simdjson", [True, False])
def test_large_payloads_take_the_fast_path_without_simdjson(monkeypatch, simdjson):
    """simdjson is optional, and results without it are equal."""
    if not simdjson:
        monkeypatch.setattr(bulk, "simdjson", None)
    meta = metadata(SCHEMAS["doubles"])
    fast_decoder = decoder_for(meta)
    text = json.dumps({"dataframe_split": {"columns": list("cab"), "data": [[1, 0.5, 1e-300]] * 2000}})
    assert (bulk.split(text) is not None) == simdjson
    assert agree(fast_decoder, meta, text)


def test_several_payloads_make_one_frame(decoder):
    """Rows of several calls, in different formats, are stacked in one frame."""
    fast_decoder, meta = decoder
    row = {spec.name: PLAIN[spec.type.name] for spec in meta.get_input_schema().inputs}
    parts = [fast_decoder.decode(json.dumps({"dataframe_records": [row] * count})) for count in (1, 2, 3)]
    parts += [fast_decoder.decode(json.dumps({"inputs": {name: [value] for name, value in row.items()}}))]
    frame = fast_decoder.table([decoded for decoded in parts if decoded])
    pd.testing.assert_frame_equal(
        frame, fast_decoder.table([fast_decoder.decode(json.dumps({"dataframe_records": [row] * 7}))])
    )


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (Schema([ColSpec(DataType.binary, "a")]), "the signature has columns of type binary, such as 'a'"),
        (
            Schema([ColSpec(DataType.double, "a"), ColSpec(Array(DataType.double), "b")]),
            "the signature has columns of type Array, such as 'b'",
        ),
        (Schema([ColSpec(DataType.datetime, "a")]), "the signature has columns of type datetime, such as 'a'"),
        (Schema([ColSpec(DataType.double)]), "the signature has columns without names"),
        (
            Schema([ColSpec(DataType.double, "a"), ColSpec(DataType.double, "")]),
            "the signature has columns without names",
        ),
        # A frame without column names has integers as labels, which no JSON key matches.
        (
            Schema([ColSpec(DataType.double, name) for name in (0, 1)]),  # type: ignore[arg-type]
            "the signature has columns without names",
        ),
        (Schema([ColSpec(DataType.string, "prompt")]), "the signature has the columns of an LLM payload"),
        (None, "the model has no signature"),
    ],
)
def test_signatures_that_are_not_plain(schema, reason):
    """Other types, missing names and those of LLM payloads have no fast path, and the reason names them."""
    with pytest.raises(NotPlain) as raised:
        decoder_for(metadata(schema) if schema is not None else Model())
    assert str(raised.value) == reason


def test_payloads_without_params_are_plain_if_the_signature_has_some():
    """MLflow decodes such a payload in the same way, and gives the model the defaults; a payload with params is left
    to it."""
    params = ParamSchema([ParamSpec("top", DataType.long, 1)])
    meta = Model(signature=ModelSignature(inputs=Schema([ColSpec(DataType.double, "a")]), params=params))
    fast_decoder = decoder_for(meta)
    payload = {"dataframe_records": [{"a": 1.5}]}
    rows, expected = fast_decoder.decode(json.dumps(payload)), mlflow_input(json.dumps(payload), meta)
    assert rows is not None
    assert expected is not None
    pd.testing.assert_frame_equal(pd.DataFrame(fast_decoder.table([rows])), expected[0])
    for of_call in ({}, {"top": 2}, None):
        assert fast_decoder.decode(json.dumps({**payload, "params": of_call})) is None


def test_signatures_from_type_hints_are_not_plain():
    """Type hints need MLflow's parser, and the reason names them."""
    schema = Schema([ColSpec(DataType.double, "a")])
    hinted = ModelSignature(inputs=schema)
    hinted._is_signature_from_type_hint = True
    with pytest.raises(NotPlain, match="comes from type hints"):
        decoder_for(Model(signature=hinted))


MISSING_ROWS: list[list[object]] = [
    [None, 1.5, 2.5], [None, None, None], [1, None, 2.5], [None, 2**53 - 1, None], [None, 2**53 + 1, None],
    [None, 1e300, 0.5], [None, True, 1.0], [None, "1", 1.0], [float("nan"), 1.5, None], [float("nan")] * 3,
    [float("inf"), None, 1.0], [-0.0, None, 5e-324],
]  # fmt: skip


@pytest.mark.parametrize("name", ["doubles", "floats", "optional doubles", "optional mixed", "mixed"])
def test_missing_numbers_agree_or_are_left_to_mlflow(name):
    """Null and NaN in columns of floats become the NaN of MLflow's frames, in every format."""
    meta = metadata(SCHEMAS[name])
    fast_decoder = decoder_for(meta)
    row = {spec.name: PLAIN[spec.type.name] for spec in meta.get_input_schema().inputs}
    floats = [spec.name for spec in meta.get_input_schema().inputs if spec.type in (DataType.double, DataType.float)]
    for values in MISSING_ROWS:
        odd = {**row, **dict(zip(floats, values, strict=False))}
        for rows in ([odd], [row, odd], [odd, row, odd]):
            for text in (
                json.dumps({"dataframe_split": {"columns": list(row), "data": [list(one.values()) for one in rows]}}),
                json.dumps({"dataframe_records": rows}),
                json.dumps({"inputs": {key: [one[key] for one in rows] for key in row}}),
                json.dumps({"instances": rows}),
            ):
                agree(fast_decoder, meta, text)
    for missing in (None, float("nan")):
        odd = {**row, floats[0]: missing}
        text = json.dumps({"dataframe_split": {"columns": list(odd), "data": [list(odd.values())]}})
        assert agree(fast_decoder, meta, text)
        assert fast_decoder.without_missing().decode(text) is None


@pytest.mark.parametrize("name", ["boolean", "integer", "long", "string"])
@pytest.mark.parametrize("required", [True, False])
def test_missing_values_of_other_types_are_left_to_mlflow(name, required):
    """A null that is no number of a column of floats is left to MLflow's parser."""
    spec = ColSpec(DataType[name], "a", required=required)
    for others in ([], [ColSpec(DataType.double, "b")]):
        meta = metadata(Schema([spec, *others]))
        for missing in (None, float("nan")):
            record = {"a": missing, **{other.name: 1.5 for other in others}}
            assert decoder_for(meta).decode(json.dumps({"dataframe_records": [record]})) is None


@pytest.mark.parametrize(
    "schema",
    [
        Schema([ColSpec(DataType.double, name) for name in "ab"]),
        Schema([ColSpec(DataType.long, "a"), ColSpec(DataType.double, "b"), ColSpec(DataType.boolean, "c")]),
        Schema([TensorSpec(np.dtype("float32"), (-1, 3))]),
    ],
)
def test_samples_are_all_different(schema):
    """Samples differ however few rows the example has, because the decision on batching is based on them."""
    fast_decoder = decoder_for(metadata(schema))
    row = {"a": 1, "b": 2.5, "c": True} if len(schema.inputs) == 3 else {"a": 1.5, "b": 2.5}
    example = json.dumps({"inputs": [[1.0, 2.0, 3.0]]} if schema.is_tensor_spec() else {"dataframe_records": [row]})
    complete = fast_decoder.without_missing()

    def tables(samples):
        return [np.asarray(complete.table([sample])).astype(str).tobytes() for sample in samples]

    assert len(set(tables(complete.samples(example, varied=True)))) == 64
    assert len(set(tables(complete.samples(example)))) == 1
    whole = tables(fast_decoder.samples(example, varied=True)[1::2])
    assert len(set(whole)) == len(whole)


@pytest.mark.parametrize("name", ["doubles", "mixed", "longs"])
def test_samples_lack_numbers_of_every_column_of_floats(name):
    """Half of the samples for a decoder that takes missing numbers lack some, and each column of floats lacks some."""
    fast_decoder = decoder_for(metadata(SCHEMAS[name]))
    types: Any = SCHEMAS[name].input_dict()
    row = {label: PLAIN[spec.type.name] for label, spec in types.items()}
    is_float = {label: spec.type in (DataType.double, DataType.float) for label, spec in types.items()}
    without = {key: None if is_float[key] else value for key, value in row.items()}
    for records in ([row, row], [row, without], [without]):
        example = json.dumps({"dataframe_records": records})
        table = fast_decoder.table(fast_decoder.samples(example, varied=True))
        assert isinstance(table, pd.DataFrame)
        assert {label: table[label].isna().any() for label in table} == is_float
        assert not table[1::2].isna().any(axis=None)
    complete = fast_decoder.without_missing()
    assert not pd.isna(complete.table(complete.samples(json.dumps({"dataframe_records": [row]}), varied=True))).any(
        axis=None
    )
