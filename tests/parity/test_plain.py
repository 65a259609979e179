"""The fast decoder gives what MLflow's parser and checks give, or nothing."""

import json

import mlflow
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema

from mlflow_grpc.hosting import mlflow_internals as internals
from mlflow_grpc.payload.plain import PlainDecoder
from tests.support.payloads import SCALARS, TEXTS, payloads

SCHEMAS = {
    "doubles": Schema([ColSpec(DataType.double, name) for name in "abc"]),
    "longs": Schema([ColSpec(DataType.long, name) for name in "ab"]),
    "integers": Schema([ColSpec(DataType.integer, name) for name in "ab"]),
    "booleans": Schema([ColSpec(DataType.boolean, name) for name in "ab"]),
    "strings": Schema([ColSpec(DataType.string, name) for name in "ab"]),
    "mixed": Schema(
        [
            ColSpec(kind, kind.name)
            for kind in (DataType.boolean, DataType.integer, DataType.long, DataType.double, DataType.string)
        ]
    ),
}


def metadata(schema):
    return Model(signature=ModelSignature(inputs=schema))


def mlflow_s_way(text, meta):
    """What the model would be given, or None if it would not be called."""
    try:
        parsed = internals.parse_json(text.encode(), meta, meta.get_input_schema())
        data, params = mlflow.pyfunc._validate_prediction_input(
            parsed.data, parsed.params, meta.get_input_schema(), None, "mlflow.sklearn"
        )
    except Exception:
        return None
    return data, params, parsed.is_unified_llm_input


def agree(decoder, meta, text):
    """Whether the text was plain; if so, both ways must give the same frame, dtypes, index and layout included."""
    rows = decoder.decode(text)
    if rows is None:
        return False
    expected = mlflow_s_way(text, meta)
    assert expected is not None, text
    frame, params, llm = expected
    assert (params, llm) == (None, False)
    ours = decoder.frame([rows])
    pd.testing.assert_frame_equal(ours, frame, check_exact=True, check_column_type=True, check_index_type=True)
    assert type(ours.index) is type(frame.index)
    if ours.dtypes.nunique() == 1:
        assert ours.to_numpy().flags.f_contiguous == frame.to_numpy().flags.f_contiguous
        assert ours.to_numpy().tobytes() == frame.to_numpy().tobytes() or ours.dtypes.iloc[0] == "str"
    return True


@pytest.fixture(params=SCHEMAS)
def decoder(request):
    meta = metadata(SCHEMAS[request.param])
    made = PlainDecoder.of_model(meta)
    assert made is not None
    return made, meta


PLAIN = {"boolean": True, "integer": 3, "long": 2**60, "double": 0.1, "string": "é"}


@pytest.mark.parametrize("rows", [1, 3])
def test_plain_payloads_of_every_format_are_taken(decoder, rows):
    """The fast way is really taken, and its frame is MLflow's."""
    made, meta = decoder
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
        assert agree(made, meta, text), text


def test_odd_cells_agree_or_are_left_to_mlflow(decoder):
    """Every odd scalar in every column and format."""
    made, meta = decoder
    row = {spec.name: PLAIN[spec.type.name] for spec in meta.get_input_schema().inputs}
    for value in SCALARS:
        for name in row:
            odd = {**row, name: value}
            agree(made, meta, json.dumps({"dataframe_split": {"columns": list(row), "data": [list(odd.values())]}}))
            agree(made, meta, json.dumps({"dataframe_records": [row, odd]}))
            agree(made, meta, json.dumps({"inputs": {key: [cell] for key, cell in odd.items()}}))
            agree(made, meta, json.dumps({"instances": [odd, row]}))


def test_odd_texts_agree_or_are_left_to_mlflow(decoder):
    """Every odd document."""
    made, meta = decoder
    for text in TEXTS:
        agree(made, meta, text)


@pytest.mark.parametrize("name", SCHEMAS)
def test_generated_payloads_agree_or_are_left_to_mlflow(name):
    """Whatever hypothesis makes of the signature."""
    meta = metadata(SCHEMAS[name])
    made = PlainDecoder.of_model(meta)
    assert made is not None
    taken = []

    @settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data):
        text = data.draw(payloads(meta.get_input_schema()))
        if made is not None and agree(made, meta, text):
            taken.append(text)

    check()
    assert taken


def test_several_payloads_make_one_frame(decoder):
    """Rows of several calls, in different formats, stand one below the other."""
    made, meta = decoder
    row = {spec.name: PLAIN[spec.type.name] for spec in meta.get_input_schema().inputs}
    parts = [made.decode(json.dumps({"dataframe_records": [row] * count})) for count in (1, 2, 3)]
    parts += [made.decode(json.dumps({"inputs": {name: [value] for name, value in row.items()}}))]
    frame = made.frame([part for part in parts if part])
    pd.testing.assert_frame_equal(frame, made.frame([made.decode(json.dumps({"dataframe_records": [row] * 7}))]))


def test_signatures_that_are_not_plain():
    """Optional columns, other types, LLM names, params and type hints have no fast way."""
    for schema in (
        Schema([ColSpec(DataType.double, "a", required=False)]),
        Schema([ColSpec(DataType.binary, "a")]),
        Schema([ColSpec(DataType.datetime, "a")]),
        Schema([ColSpec(DataType.float, "a")]),
        Schema([ColSpec(DataType.double)]),
        Schema([ColSpec(DataType.string, "prompt")]),
    ):
        assert PlainDecoder.of_model(metadata(schema)) is None
    assert PlainDecoder.of_model(Model()) is None
