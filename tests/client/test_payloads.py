"""Python objects as payloads, compared with MLflow's own client, and with models that describe their input."""

import base64
import contextlib
import datetime as dt
import decimal
import json
import math
import sys
import threading
import types
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.utils.proto_json_utils import dump_input_data
from mlflow_grpc_client import Client, InvalidInput
from mlflow_grpc_client._payloads import from_json, is_bare, to_json

from mlflow_grpc.hosting.pyfunc import fetching
from mlflow_grpc.hosting.pyfunc.load import load_pyfunc
from mlflow_grpc.payload.mlflow_json.codec import ScoringCodec
from tests.support import zoo
from tests.support.depth import examples
from tests.support.servers import serving

NOON = pd.Timestamp("2021-01-01T12:00:00.123456789")


def reference(frame):
    """Returns what MLflow's client sends for a DataFrame, without the index, which the server makes by default."""
    document = json.loads(dump_input_data(frame))
    if frame.index.equals(pd.RangeIndex(len(frame))) and isinstance(frame.index, pd.RangeIndex):
        del document["dataframe_split"]["index"]
    return json.dumps(document)


FRAMES = {
    "int64": pd.DataFrame({"a": [1, -(2**63), 2**63 - 1]}),
    "uint64": pd.DataFrame({"a": np.array([0, 2**64 - 1], "uint64")}),
    "int8": pd.DataFrame({"a": np.array([-128, 127], "int8")}),
    "float64": pd.DataFrame({"a": [0.1, -0.0, 5e-324, 1.7976931348623157e308, math.nan, math.inf, -math.inf]}),
    "float32": pd.DataFrame({"a": np.array([0.1, 16777217, math.nan], "float32")}),
    "float16": pd.DataFrame({"a": np.array([0.1], "float16")}),
    "bool": pd.DataFrame({"a": [True, False]}),
    "mixed": pd.DataFrame({"a": [1, 2], "b": [0.5, math.nan], "c": ["x", "é\u0000\U0001f600"], "d": [True, False]}),
    "strings and None": pd.DataFrame({"a": ["x", None]}),
    "strings of old": pd.DataFrame({"a": ["x", None, math.nan]}, dtype=object),
    "objects": pd.DataFrame({"a": [1, "x", 2.5, None, True, 10**30]}, dtype=object),
    "nullable Int64, full": pd.DataFrame({"a": pd.array([1, 2], "Int64")}),
    "nullable boolean, full": pd.DataFrame({"a": pd.array([True, False], "boolean")}),
    "nullable types with gaps": pd.DataFrame(
        {"a": pd.array([1, None], "Int64"), "b": pd.array([None, "x"], "string"), "c": pd.array([None, 0.5], "Float64")}
    ),
    "pd.NA among objects": pd.DataFrame({"a": np.array([1, pd.NA], object)}),
    "categorical": pd.DataFrame({"a": pd.Categorical(["x", "y", None]), "b": pd.Categorical([1, 2, 1])}),
    "naive datetimes": pd.DataFrame({"a": [NOON, pd.NaT], "b": pd.to_datetime(["2021-01-01", "1815-12-10"])}),
    "datetimes among objects": pd.DataFrame({"a": [NOON, dt.datetime(2021, 1, 1), 1]}, dtype=object),
    "datetimes with a zone": pd.DataFrame(
        {"a": [NOON.tz_localize("Europe/Berlin"), NOON.tz_localize("Europe/Berlin")]}
    ),
    "dates": pd.DataFrame({"a": [dt.date(2021, 1, 1), None], "b": [dt.time(12, 30, 1, 5), dt.time(0)]}),
    "arrow": pd.DataFrame({"a": pd.array([1, 2], "int64[pyarrow]"), "b": pd.array(["x", "y"], "string[pyarrow]")}),
    "sparse": pd.DataFrame({"a": pd.arrays.SparseArray([0, 0, 1])}),
    "nested": pd.DataFrame(
        {"a": [[1, [2.5]], []], "b": [{"k": [1]}, {}], "c": [np.arange(2), np.ones((2, 2))], "d": [(1, 2), (3,)]}
    ),
    "no rows": pd.DataFrame({"a": [], "b": []}),
    "no columns": pd.DataFrame(index=pd.RangeIndex(2)),
    "nothing": pd.DataFrame(),
    "columns that are numbers": pd.DataFrame([[1, 2.5]], columns=[0, 1]),
    "columns of every kind": pd.DataFrame([[1, 2, 3, 4]], columns=["x", 1.5, None, True]),
    "columns that are dates": pd.DataFrame([[1]], columns=pd.to_datetime(["2021-01-01"])),
    "an index of numbers": pd.DataFrame({"a": [1, 2]}, index=[7, 3]),
    "an index of texts": pd.DataFrame({"a": [1, 2]}, index=["x", "y"]),
    "an index of dates": pd.DataFrame({"a": [1, 2]}, index=pd.to_datetime(["2021-01-01", "2021-01-02"])),
    "a named index": pd.DataFrame({"a": [1, 2]}, index=pd.Index([5, 6], name="id")),
    "an index that is a range": pd.DataFrame({"a": [1, 2, 3, 4]}).iloc[1:3],
    "an index in steps": pd.DataFrame({"a": [1, 2, 3, 4]}).iloc[::2],
    "an index with repeats": pd.DataFrame({"a": [1, 2]}, index=[0, 0]),
    "an index that only looks like the default": pd.DataFrame({"a": [1, 2]}, index=[0, 1]),
}

EXACT = [
    "int64", "bool", "mixed", "strings and None", "objects", "no rows", "columns that are numbers",
    "an index of numbers", "an index of texts", "an index in steps", "an index with repeats",
]  # fmt: skip

NO_FORM = {
    "timedelta": (pd.DataFrame({"a": pd.to_timedelta([1], unit="s")}), r"Timedelta has no JSON form.*total_seconds"),
    "timedelta objects": (pd.DataFrame({"a": [dt.timedelta(1)]}, dtype=object), "timedelta has no JSON form"),
    "period": (pd.DataFrame({"a": pd.period_range("2021", periods=1)}), "Period has no JSON form"),
    "interval": (pd.DataFrame({"a": pd.interval_range(0, 1)}), "Interval has no JSON form"),
    "complex": (pd.DataFrame({"a": [1j]}), "complex.* no JSON form"),
    "decimal": (pd.DataFrame({"a": [decimal.Decimal(1)]}), r"decimal\.Decimal has no JSON form"),
    "set": (pd.DataFrame({"a": [{1}]}), "set has no JSON form"),
    "frame in a cell": (pd.DataFrame({"a": [pd.DataFrame()]}), "DataFrame has no JSON form"),
    "columns twice": (pd.DataFrame([[1, 2]], columns=["a", "a"]), "several columns of the name 'a'"),
    "columns of two levels": (pd.DataFrame({("a", "b"): [1], ("a", "c"): [2]}), "columns has tuples.*MultiIndex"),
    "a column that is a tuple": (
        pd.DataFrame([[1]], columns=pd.Index([("a",)], tupleize_cols=False)),
        "columns has tuples",
    ),
    "index of two levels": (pd.DataFrame({"a": [1]}, index=[["x"], ["y"]]), "index has tuples.*reset_index"),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_frames_are_sent_like_mlflows_client(frame):
    """The payload equals that of MLflow's client for all types, names and indexes."""
    assert to_json(frame) == reference(frame)


@pytest.mark.parametrize(("frame", "message"), NO_FORM.values(), ids=NO_FORM)
def test_frames_without_a_json_form_are_refused(frame, message):
    """A TypeError names the type, instead of sending a value that the model would misread."""
    with pytest.raises(TypeError, match=message):
        to_json(frame)


@pytest.mark.parametrize(
    ("stamps", "texts"),
    [
        (["2021-01-01", None], ["2021-01-01T00:00:00", "NaT"]),
        ([None, "2021-01-01T00:00:00.5", "2021-01-01"], ["NaT", "2021-01-01T00:00:00.500000", "2021-01-01T00:00:00.000000"]),
        (["2021-01-01T00:00:00.000000001", "2021-01-01T00:00:00.5"], ["2021-01-01T00:00:00.000000001", "2021-01-01T00:00:00.500000000"]),
        ([None, None], ["NaT", "NaT"]),
        ([], []),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize(("zone", "offset"), [(None, ""), ("Europe/Berlin", "+01:00")])
def test_dates_of_a_column_have_one_format(stamps, texts, zone, offset):
    """All dates of a column have the precision of the finest, and the frame is not changed."""
    column = pd.Series(pd.to_datetime(stamps, format="ISO8601")).dt.as_unit("ns").dt.tz_localize(zone)
    frame = pd.DataFrame({"a": column, "b": column})
    before = frame.copy()
    rows = json.loads(to_json(frame))["dataframe_split"]["data"]
    assert rows == [[text if text == "NaT" else text + offset] * 2 for text in texts]
    pd.testing.assert_frame_equal(frame, before)


CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.dates(), st.times(),
    st.datetimes().map(lambda date: date.replace(microsecond=0)),
    st.lists(st.integers()), st.dictionaries(st.text(), st.floats()), st.just(pd.NaT),
)  # fmt: skip


@settings(max_examples=examples(150), deadline=None)
@given(st.data())
def test_arbitrary_frames_are_sent_like_mlflows_client(data):
    """Arbitrary cells that MLflow's client can send, with arbitrary names and indexes, have the same payload."""
    rows = data.draw(st.integers(0, 4))
    names = data.draw(st.lists(st.one_of(st.text(), st.integers(-(2**63), 2**63 - 1)), unique=True, max_size=4))
    columns = {name: data.draw(st.lists(CELLS, min_size=rows, max_size=rows)) for name in names}
    labels = st.lists(st.integers(0, 5), min_size=rows, max_size=rows)
    index = data.draw(st.one_of(st.none(), labels)) if names else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas guesses at mixtures of dates.
        frame = pd.DataFrame(columns, index=index, dtype=data.draw(st.sampled_from([None, object])))
    assert to_json(frame) == reference(frame)


@pytest.mark.parametrize(
    ("data", "document"),
    [
        ({"instances": [1]}, {"instances": [1]}),
        ([1, "x"], {"inputs": [1, "x"]}),
        ((1, 2), {"inputs": [1, 2]}),
        (np.array([[1, 2], [3, 4]]), {"inputs": [[1, 2], [3, 4]]}),
        (np.array(5.5), {"inputs": 5.5}),
        (np.array([0.1], "float32"), {"inputs": [0.10000000149011612]}),
        (np.array([0.5], np.longdouble), {"inputs": [0.5]}),
        (np.array(["x"]), {"inputs": ["x"]}),
        ([pd.NA], {"inputs": [None]}),
        (np.array(["x", None, np.int8(5), pd.NA], object), {"inputs": ["x", None, 5, None]}),
        (np.ma.masked_array([1, 2], [False, True]), {"inputs": [1, None]}),
        (np.array(["2021-01-01T00:00:00.000000001", "NaT"], "M8[ns]"), {"inputs": ["2021-01-01T00:00:00.000000001", "NaT"]}),
        ({"x": np.zeros((1, 2)), "mask": np.array([True])}, {"inputs": {"x": [[0.0, 0.0]], "mask": [True]}}),
        ({"inputs": np.array([1])}, {"inputs": [1]}),
        ({"instances": np.array([1]), "params": {"k": np.float32(0.5)}}, {"instances": [1], "params": {"k": 0.5}}),
        ({"x": [1]}, {"x": [1]}),
        ({}, {}),
        (pd.Series([1, 2], name="a"), {"dataframe_split": {"columns": ["a"], "data": [[1], [2]]}}),
        ({"inputs": {"a": pd.Series([1, 2]), "b": pd.Index(["x"])}}, {"inputs": {"a": [1, 2], "b": ["x"]}}),
        ({"inputs": [b"\x01\xff", bytearray(b"a"), np.bytes_(b"b")]}, {"inputs": ["Af8=", "YQ==", "Yg=="]}),
        (
            {"inputs": [np.int64(1), np.float16(0.5), np.bool_(True), np.str_("x"), np.datetime64("2021-01-01"), pd.NaT, NOON]},
            {"inputs": [1, 0.5, True, "x", "2021-01-01", "NaT", "2021-01-01T12:00:00.123456789"]},
        ),
    ],
    ids=str,
)  # fmt: skip
def test_other_data(data, document):
    """Lists, arrays and dicts of arrays are sent as inputs, and a dict in one of MLflow's formats unchanged."""
    assert json.loads(to_json(data)) == document


@pytest.mark.parametrize(
    "data",
    [None, 5, b"bytes", {1, 2}, pd.Index([1]), object(), dt.date(2021, 1, 1)],
    ids=lambda data: type(data).__name__,
)
def test_unsupported_data_is_refused(data):
    """Unsupported data is a TypeError that lists the supported types."""
    with pytest.raises(TypeError, match=r"^cannot send .*: give a dict, a DataFrame, an array, a list or a JSON text$"):
        to_json(data)


@pytest.mark.parametrize(
    "array",
    [np.array([1], "m8[ns]"), np.array([1j]), np.array([b"x"]), np.zeros(1, [("a", int)]), np.timedelta64(1, "ns"), np.clongdouble(1)],
    ids=repr,
)  # fmt: skip
def test_unsupported_arrays_are_refused(array):
    """Arrays that tolist() would convert to numbers or tuples are refused."""
    with pytest.raises(TypeError, match="no JSON form"):
        to_json([array])


def test_texts_are_sent_unchanged():
    """A text is neither parsed nor trimmed."""
    assert to_json(' {"inputs": [1]}\n') == ' {"inputs": [1]}\n'


@pytest.mark.parametrize(
    ("data", "params", "document"),
    [
        ([1], {"k": np.int64(1), "since": NOON}, {"inputs": [1], "params": {"k": 1, "since": NOON.isoformat()}}),
        ([1], {}, {"inputs": [1], "params": {}}),
        ({"prompt": "x"}, {"k": 1}, {"prompt": "x", "k": 1}),
    ],
)
def test_params(data, params, document):
    """Params are under `params`, or among the keys of an LLM payload, where MLflow looks for them."""
    assert json.loads(to_json(data, params)) == document


@pytest.mark.parametrize(
    ("data", "params"),
    [("{}", {"k": 1}), ({"inputs": [1], "params": {}}, {"k": 1}), ({"prompt": "x", "k": 1}, {"k": 2})],
)
def test_params_that_would_be_lost(data, params):
    """Params with a text, or with params in the payload, are a TypeError; the caller's data is not changed."""
    before = repr(data)
    with pytest.raises(TypeError, match="params"):
        to_json(data, params)
    assert repr(data) == before


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"messages": []}, True),
        ({"prompt": "x"}, True),
        ({"input": "x"}, True),
        ({"inputs": "x"}, False),
        ('{"input": "x"}', True),
        ('{"inputs": "input"}', False),
        ('{"inputs": ["input"]', False),
        ('["input"]', False),
        ([{"input": 1}], False),
        (pd.DataFrame({"input": [1]}), False),
    ],
    ids=str,
)
def test_llm_payloads(data, expected):
    """Answers to LLM payloads have no `predictions` key, so they are returned whole."""
    assert is_bare(data) is expected
    assert from_json('{"predictions": 1}', bare=is_bare(data)) == ({"predictions": 1} if expected else 1)


def test_a_text_that_is_nested_too_deeply():
    """A text that Python cannot parse is no LLM payload; the server refuses it."""
    assert is_bare('{"input": ' + "[" * 100_000 + "]" * 100_000 + "}") is False


def test_a_library_that_is_being_imported(monkeypatch):
    """A call works while another thread imports pandas and only the module's name exists."""
    for name in ("pandas", "numpy"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    assert to_json({"inputs": [dt.date(2021, 1, 1)]}) == '{"inputs": ["2021-01-01"]}'


# Real models


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The zoo's model of a name: the Python object, and a client of a server with it."""
    folder, loaded_models = tmp_path_factory.mktemp("zoo"), {}
    with contextlib.ExitStack() as stack:

        def get(name):
            if name not in loaded_models:
                zoo.save(name, folder / name)
                loaded = load_pyfunc(fetching.fetch(str(folder / name)), name=name)
                server = stack.enter_context(serving(loaded, ScoringCodec(loaded.metadata, loaded.loader_module)))
                loaded_models[name] = loaded, stack.enter_context(Client(server.address))
            return loaded_models[name]

        yield get


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_the_model_gets_the_input_of_mlflows_client(model, frame):
    """A model without a signature gets the same types, names, labels and cells from both clients."""
    _, client = model("no_signature")
    try:
        expected = client.predict(dump_input_data(frame))
    except InvalidInput as refusal:
        with pytest.raises(InvalidInput) as caught:
            client.predict(frame)
        assert caught.value.message == refusal.message
    else:
        assert client.predict(frame) == expected


@pytest.mark.parametrize("name", EXACT)
def test_the_model_gets_an_equal_frame(model, name):
    """If JSON has all types of a frame, the model gets the same input as for the frame in Python."""
    _, client = model("no_signature")
    frame = FRAMES[name]
    if name == "no rows":
        frame = frame.astype(object)  # JSON has no rows that would show a type.
    assert client.predict(frame)["input"] == zoo.tell(frame)


def typed_frame():
    return pd.DataFrame(
        {
            "boolean": [True, False],
            "integer": np.array([1, -2], "int32"),
            "long": [2**60, -5],
            "float": np.array([0.1, math.inf], "float32"),
            "double": [0.1, math.nan],
            "string": ["x", "é"],
            "binary": [b"\x00\xff", b""],
            "datetime": np.array([0, NOON.value], "M8[ns]"),
        }
    )


def test_a_signature_restores_every_type(model):
    """With a signature, a frame with all of MLflow's types has the same prediction as in Python, with bytes and
    nanoseconds."""
    loaded, client = model("every_column")
    frame = typed_frame()
    assert client.predict(frame) == loaded.predict(frame, None)
    echo = client.predict(frame)["input"]["cells"]
    assert echo[6] == ["bytes b'\\x00\\xff'", "bytes b''"]
    assert echo[7][1] == "Timestamp Timestamp('2021-01-01 12:00:00.123456789')"


def test_a_series_is_a_column(model):
    """A Series is a single column, as in MLflow's pyfunc."""
    _, client = model("no_signature")
    series = pd.Series([1.5, 2.5], name="a")
    assert client.predict(series)["input"] == zoo.tell(series.to_frame())


def test_arrays_of_a_tensor_signature(model):
    """A dict of arrays has the types and shapes of the signature."""
    loaded, client = model("tensors")
    arrays = {"x": np.array([[0.1, 2.0]]), "mask": np.array([7])}
    assert client.predict(arrays) == loaded.predict(arrays, None)


def test_params_of_a_model(model):
    """Params have the signature's types, for values of Python and numpy."""
    loaded, client = model("params")
    params = {"temperature": 0.1, "top_k": 5, "since": dt.datetime(2021, 1, 1), "stops": ["x", "y"]}
    frame = pd.DataFrame({"a": [1.5]})
    assert client.predict(frame, params)["params"] == loaded.predict(frame, params)["params"]
    echo = json.dumps(client.predict(frame, {"top_k": np.int32(5), "weights": np.array([1.5])})["params"])
    assert "int 5" in echo
    assert "float 1.5" in echo


def test_an_llm_payload_with_params(model):
    """Params of the signature are sent as params, and all others in the payload."""
    _, client = model("chat")
    answer = client.predict({"messages": [{"role": "user", "content": "hi"}], "temperature": 0.5}, {"top_k": 7})
    assert "top_k" in json.dumps(answer["params"])
    assert "7" in json.dumps(answer["params"])
    assert "top_k" not in json.dumps(answer["input"])


def test_csv(model):
    """CSV with its content type equals the result of pandas.read_csv."""
    _, client = model("no_signature")
    answer = json.loads(client.predict_text("a,b\n1,x\n", content_type="text/csv"))
    assert answer["predictions"]["input"]["cells"] == [["int 1"], ["str 'x'"]]


def test_violations_name_the_columns(model):
    """An invalid frame is InvalidInput with a violation for each column at fault."""
    _, client = model("numbers")
    with pytest.raises(InvalidInput) as caught:
        client.predict(pd.DataFrame({"a": ["x"]}))
    assert [violation.field for violation in caught.value.violations] == ["b", "a"]
    assert caught.value.reason


def test_base64_is_what_mlflow_decodes():
    """Base64 has the standard alphabet with padding."""
    assert json.loads(to_json([b"\xfb\xff"])) == {"inputs": [base64.b64encode(b"\xfb\xff").decode()]}


def test_threads_share_a_client(model):
    """Frames sent by several threads do not mix."""
    _, client = model("no_signature")
    results = {}

    def call(number):
        results[number] = client.predict(pd.DataFrame({"a": [number]}))["input"]["cells"]

    threads = [threading.Thread(target=call, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [[f"int {number}"]] for number in range(16)}
