"""Values to and from a model's messages, compared with the server's own reader and writer."""

import datetime as dt
import math
from enum import Enum
from typing import Any, Literal
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from _mlflow_grpc_protocol.typed_terms import RpcKind
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow_grpc_client import _wire
from mlflow_grpc_client._reflection import SERVICE
from mlflow_grpc_client._typed import column_writer, columns, reader, tensors, writer
from mlflow_grpc_client._typed.batch_request import BatchRequest
from mlflow_grpc_client._typed.descriptors import contract_of
from pydantic import BaseModel, Field

from mlflow_grpc import protos
from mlflow_grpc.contract import service
from mlflow_grpc.contract.json_schema import record_of
from mlflow_grpc.contract.messages import FileMaker
from mlflow_grpc.contract.types import Contract, DataType, Record, Scalar, Tensor
from mlflow_grpc.contract.types import Field as Column
from mlflow_grpc.payload.protobuf.reader import Reader
from mlflow_grpc.payload.protobuf.writer import fill as fill_as_server
from tests.support.depth import examples


class WireModel:
    """A model's messages, as the server makes them and as the client reads them from descriptors."""

    def __init__(self, contract: Contract) -> None:
        maker = FileMaker()
        self.shapes = maker.add("m", contract)
        service.add_service(maker.file, [self.shapes])
        info = _wire.Model()
        info.names.update(self.shapes.model_names.names)
        info.wrappers.extend(self.shapes.model_names.wrappers)
        for rpc in service.rpcs_of(self.shapes):
            types = {
                "request_type": f"model_grpc_service.{rpc.input}",
                "response_type": f"model_grpc_service.{rpc.output}",
            }
            info.rpcs.add(path=f"/{SERVICE}/{rpc.name}", **types)
        self.contract = contract_of(info, protos.pool_with(maker.file))
        self.single_rpc, self.batch_rpc = (self.contract.rpc(name) for name in (RpcKind.ONE, RpcKind.BATCH))

    def message(self, record: dict[str, Any]) -> Any:
        """Returns the client's message for a record."""
        message = self.single_rpc.request_class()
        writer.fill(message, self.single_rpc.request, record)
        return message

    def read_by_server(self, record: dict[str, Any]) -> Any:
        """Returns the record that the server reads from the client's message."""
        return Reader(with_zone=True).record(self.message(record), self.shapes.input, "")

    def read_by_client(self, record: dict[str, Any]) -> Any:
        """Returns the record that the client reads from the server's message."""
        message = self.single_rpc.response_class()
        fill_as_server(message, self.shapes.output, record, "")
        return reader.read_record(message, self.single_rpc.response)

    def batch(self, rows: Any) -> Any:
        """Returns the client's message for rows."""
        request = BatchRequest(self.batch_rpc.request_class())
        column_writer.fill(request, self.batch_rpc.request, *columns.columns_of(rows, self.single_rpc.request))
        return self.batch_rpc.request_class.FromString(request.SerializeToString())


class Size(Enum):
    SMALL = "small"
    LARGE = "large one"


class Component(BaseModel):
    weight: float
    values: list[float] = []
    data: list[float] = []
    shape: list[int] = []


class Variant(BaseModel):
    weight: float
    values: list[str] = []


class AllTypes(BaseModel):
    integer: int = 0
    number: float | None = None
    flag: bool | None = None
    text: str | None = None
    blob: bytes | None = None
    moment: dt.datetime | None = None
    day: dt.date | None = None
    uuid: UUID | None = None
    size: Size | None = None
    literal: Literal["a", "b-c", "B c"] | None = None
    component: Component | None = None
    parts: list[Component] | None = None
    holes: list[float | None] | None = None
    counts: dict[str, int] | None = None
    groups: dict[str, list[int]] | None = None
    table: list[list[str]] | None = None
    anything: Any = None
    either: int | str | float | Component | None = None
    shapes: Component | Variant | list[int] | list[str] | None = None
    moments: list[dt.datetime] | None = None
    odd: int | None = Field(None, alias="odd name (cm)")


@pytest.fixture(scope="module")
def all_types():
    record = record_of(AllTypes.model_json_schema(), "input")
    return WireModel(Contract(record, record))


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)

INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
FLOATS = st.floats(allow_nan=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
PARTS = st.fixed_dictionaries(
    {"weight": FLOATS, "values": st.lists(FLOATS, max_size=2), "data": st.lists(FLOATS, max_size=2),
     "shape": st.lists(INTEGERS, max_size=2)}
)  # fmt: skip
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "integer": INTEGERS,
        "number": FLOATS,
        "flag": st.booleans(),
        "text": TEXT,
        "blob": st.binary(max_size=5),
        "moment": st.datetimes(timezones=st.just(dt.UTC)).map(lambda moment: moment.replace(fold=0)),
        "size": st.sampled_from(["small", "large one"]),
        "literal": st.sampled_from(["a", "b-c", "B c"]),
        "component": PARTS,
        "parts": st.lists(PARTS, max_size=2),
        "holes": st.lists(FLOATS | st.none(), max_size=3),
        "counts": st.dictionaries(TEXT, INTEGERS, max_size=2),
        "groups": st.dictionaries(TEXT, st.lists(INTEGERS, max_size=2), max_size=2),
        "table": st.lists(st.lists(TEXT, max_size=2), max_size=2),
        "anything": JSON.filter(lambda value: value is not None),
        "either": INTEGERS | TEXT | FLOATS | PARTS,
        "odd name (cm)": INTEGERS,
    },
)


def as_the_server_reads(record: dict[str, Any]) -> dict[str, Any]:
    """Returns a record in the server's form: times are texts, and lists that are empty by default are left out."""
    result = dict(record)
    if "moment" in result:
        stamp = Timestamp()
        stamp.FromDatetime(result["moment"])
        result["moment"] = stamp.ToJsonString()
    if "anything" in result:
        result["anything"] = as_json_knows(result["anything"])
    for name in result.keys() & {"component", "either"}:
        result[name] = without_empty(result[name])
    if "parts" in result:
        result["parts"] = [without_empty(component) for component in result["parts"]]
    return result


def without_empty(component: Any) -> Any:
    return {key: value for key, value in component.items() if value != []} if isinstance(component, dict) else component


def exact(value: Any) -> Any:
    """Returns a value with its types, and with the sign of zeros."""
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    return (type(value), repr(value))


def as_json_knows(value: Any) -> Any:
    """Returns a JSON value as in google.protobuf.Value, where whole numbers are integers."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value) if repr(value) != "-0.0" else value
    if isinstance(value, list):
        return [as_json_knows(item) for item in value]
    return {key: as_json_knows(item) for key, item in value.items()} if isinstance(value, dict) else value


@settings(max_examples=examples(200), deadline=None)
@given(record=RECORDS)
def test_the_server_reads_the_clients_messages(all_types, record):
    """Values of every type are equal to the bit, with their types; absent fields stay absent."""
    assert exact(all_types.read_by_server(record)) == exact(as_the_server_reads(record))


@settings(max_examples=examples(200), deadline=None)
@given(record=RECORDS)
def test_the_client_reads_the_servers_messages(all_types, record):
    """Times are datetimes in UTC, enum values are their names, and absent values are None."""
    expected = {column.label: None for column in all_types.single_rpc.response.fields} | record
    if "anything" in record:
        expected["anything"] = as_json_knows(record["anything"])
    assert exact(all_types.read_by_client(record)) == exact(expected)


@pytest.mark.parametrize(
    ("record", "error", "message"),
    [
        ({"integer": 1.5}, ValueError, r"integer: 1\.5 is not a whole number"),
        ({"integer": True}, TypeError, "integer: bool is not a whole number"),
        ({"integer": "1"}, TypeError, "integer: str is not a whole number"),
        ({"integer": 2**63}, ValueError, "integer: 9223372036854775808 is not within"),
        ({"number": 2**53 + 1}, ValueError, "number: 9007199254740993 is not a float"),
        ({"number": 10**400}, ValueError, "number: 1000.* is not a float"),
        ({"number": False}, TypeError, "number: bool is not a number"),
        ({"flag": 1}, TypeError, "flag: int is not a bool"),
        ({"text": 1}, TypeError, "text: int is not a text"),
        ({"text": "\ud800"}, ValueError, "text: the text has a lone surrogate"),
        ({"blob": "x"}, TypeError, "blob: str is not bytes"),
        ({"moment": 5}, TypeError, "moment: int is not a datetime"),
        ({"moment": "soon"}, ValueError, "moment: 'soon' is a text that is not a point in time"),
        ({"moment": "2020-02-30"}, ValueError, "moment: "),
        ({"size": "huge"}, ValueError, "size: 'huge' is not one of 'small', 'large one'"),
        ({"component": 1}, TypeError, "component: int is not a dict"),
        ({"component": {"weight": "x"}}, TypeError, r"component\.weight: str is not a number"),
        ({"component": {"wait": 1.0}}, TypeError, r"component\.wait: there is no such field; there are: weight, values"),
        ({"parts": [{"weight": 1.0}, {"weight": True}]}, TypeError, r"parts\[1\]\.weight: bool"),
        ({"parts": "ab"}, TypeError, "parts: str is not a list"),
        ({"table": [["a", 1]]}, TypeError, r"table\[0\]\[1\]: int is not a text"),
        ({"counts": {1: 2}}, TypeError, "counts: the key 1: int is not a text"),
        ({"counts": {"a": 1.5}}, ValueError, r"counts\.a: 1\.5"),
        ({"counts": [1]}, TypeError, "counts: list is not a dict"),
        ({"holes": [1.0, "x"]}, TypeError, r"holes\[1\]: str is not a number"),
        ({"anything": {"a": [object()]}}, TypeError, r"anything\.a\[0\]: object has no JSON form"),
        ({"anything": 2**53 + 1}, ValueError, "anything: 9007199254740993 would be a float"),
        ({"anything": {"a": [-(2**60)]}}, ValueError, r"anything\.a\[0\]: -1152921504606846976 would be a float"),
        ({"either": True}, ValueError, "either: bool is not one of int64, string, double, m_Component"),
        ({"nope": 1}, TypeError, "nope: there is no such field; there are: integer, number"),
        ({"odd name (cm)": 1, "odd_name_cm": 1}, TypeError, "odd_name_cm: given twice"),
        ({"integer": np.datetime64("2020-01-01", "ns")}, TypeError, r"integer: numpy\.datetime64 is not a whole number"),
        ({"number": np.timedelta64(5, "ns")}, TypeError, r"number: numpy\.timedelta64 is not a number"),
        ({"number": np.timedelta64(5, "Y")}, TypeError, r"number: numpy\.timedelta64 is not a number"),
        ({"text": np.datetime64(5, "ns")}, TypeError, r"text: numpy\.datetime64 is not a text"),
        ({"holes": np.array([5, 6], "m8[ns]")}, TypeError, r"holes\[0\]: numpy\.timedelta64 is not a number"),
        ({"number": np.ma.array(5.0, mask=True)}, TypeError, "number: .*Masked"),
        ({"holes": np.ma.array([1.0, 5.0], mask=[False, True])}, ValueError, "holes: the array has masked values"),
        ({"holes": list(np.ma.array([1.0, 5.0], mask=[False, True]))}, TypeError, r"holes\[1\]: .*Masked"),
        ({"moments": [pd.NaT]}, ValueError, r"moments\[0\]: NaT is no point in time"),
        ({"moments": [np.datetime64("NaT", "ns")]}, ValueError, r"moments\[0\]: NaT is no point in time"),
        ({"moments": [pd.NA]}, TypeError, r"moments\[0\]: .* is not a datetime"),
        ({"moment": np.datetime64("10000-01-01")}, ValueError, "moment: .* between the years 1 and 9999"),
        ({"moment": np.datetime64("10000", "Y")}, ValueError, "moment: .* between the years 1 and 9999"),
        ({"moment": np.datetime64("0000-12", "M")}, ValueError, "moment: .* between the years 1 and 9999"),
        ({"moment": np.datetime64(2**62, "Y")}, ValueError, "moment: .* between the years 1 and 9999"),
        ({"moment": np.datetime64(2**62, "W")}, ValueError, "moment: .* between the years 1 and 9999"),
        ({"moment": np.datetime64(1, "ps")}, ValueError, "moment: .* is finer than a nanosecond"),
        ({"moment": np.datetime64(-1, "ps")}, ValueError, "moment: .* is finer than a nanosecond"),
        ({"moment": np.datetime64(1, "as")}, ValueError, "moment: .* is finer than a nanosecond"),
        ({"moment": np.datetime64("12000-01-01")}, ValueError, "moment: .* between the years 1 and 9999"),
        ({"moment": pd.Timestamp(np.datetime64("12000-01-01", "s"))}, ValueError, "moment: .* 1 and 9999"),
        ({"anything": ENDLESS}, ValueError, "anything: it is nested too deeply, or contains itself"),
        ({"holes": bytearray(b"ab")}, TypeError, "holes: bytearray is not a list"),
        ({"holes": {1.0, 2.0}}, TypeError, "holes: set is not a list"),
        ({"shapes": {"weight": "x"}}, TypeError, r"shapes\.weight: str is not a number"),
        ({"shapes": {"weight": "x", "values": []}}, TypeError, r"shapes\.weight: str is not a number"),
        ({"shapes": [None]}, ValueError, r"shapes\[0\]: None has no room in this list or map"),
    ],
)  # fmt: skip
def test_refusals_name_the_field(all_types, record, error, message):
    """A value that a field cannot hold exactly is refused with the field's name before anything is sent."""
    with pytest.raises(error, match=message):
        all_types.message(record)


@pytest.mark.parametrize(
    ("record", "same_as"),
    [
        ({"integer": np.int16(5), "flag": np.bool_(True), "number": np.float32(0.5)}, {"integer": 5, "flag": True, "number": 0.5}),
        ({"integer": 3.0, "number": 3}, {"integer": 3, "number": 3.0}),
        ({"integer": np.array(5), "number": np.array(1.5), "either": np.array("x")}, {"integer": 5, "number": 1.5, "either": "x"}),
        ({"holes": [np.array(1.5), None], "anything": np.array(2)}, {"holes": [1.5, None], "anything": 2}),
        ({"text": np.str_("x"), "blob": bytearray(b"x")}, {"text": "x", "blob": b"x"}),
        ({"size": Size.LARGE, "text": Size.SMALL}, {"size": "large one", "text": "small"}),
        ({"day": dt.date(2020, 2, 29), "uuid": UUID(int=1)}, {"day": "2020-02-29", "uuid": str(UUID(int=1))}),
        ({"odd_name_cm": 1}, {"odd name (cm)": 1}),
        ({"holes": np.array([1.0, 2.0]), "table": np.array([["a"]])}, {"holes": [1.0, 2.0], "table": [["a"]]}),
        ({"holes": pd.Series([1.0]), "parts": ()}, {"holes": [1.0], "parts": []}),
        ({"number": None, "moment": pd.NaT, "text": pd.NA}, {}),
        ({"anything": {"a": np.arange(2), "b": np.float64(0.5), "c": dt.date(2020, 1, 1)}}, {"anything": {"a": [0, 1], "b": 0.5, "c": "2020-01-01"}}),
        ({"either": np.int64(3)}, {"either": 3}),
        ({"either": {"weight": 1}}, {"either": {"weight": 1.0}}),
    ],
)  # fmt: skip
def test_equivalent_values(all_types, record, same_as):
    """Values of numpy and pandas, enum members, dates for texts, whole floats, and both names of a field."""
    assert all_types.message(record) == all_types.message(same_as)


def nested(wrap: Any, depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize(("wrap", "max_depth"), [(lambda value: [value], 48), (lambda value: {"k": value}, 32)])
def test_nesting_up_to_protobufs_limit(all_types, wrap, max_depth):
    """The deepest value that is sent can be read; a deeper one is refused by the client, with its field."""
    message = all_types.message({"anything": nested(wrap, max_depth)})
    assert type(message).FromString(message.SerializeToString()) == message
    with pytest.raises(
        ValueError, match=r"^anything: it is nested too deeply, or contains itself: .* 48 lists or 32 dicts"
    ):
        all_types.message({"anything": nested(wrap, max_depth + 1)})


@pytest.mark.parametrize("value", [0, 1.0, "1", {"weight": 1.0}])
def test_a_union_keeps_the_type(all_types, value):
    """An int is written as the int, a whole float as the float, and a text as the text."""
    result = all_types.read_by_server({"either": value})["either"]
    assert (type(result), result if not isinstance(result, dict) else result["weight"]) == (
        type(value), value if not isinstance(value, dict) else 1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (dt.datetime(2020, 2, 29, 12, 0, 0, 1), "2020-02-29T12:00:00.000001Z"),
        (dt.datetime(2020, 2, 29, 12, tzinfo=dt.timezone(dt.timedelta(hours=2))), "2020-02-29T10:00:00Z"),
        (dt.date(1, 1, 1), "0001-01-01T00:00:00Z"),
        (pd.Timestamp("2020-02-29T12:00:00.123456789"), "2020-02-29T12:00:00.123456789Z"),
        (pd.Timestamp("2020-02-29T12:00", tz="Europe/Berlin"), "2020-02-29T11:00:00Z"),
        (np.datetime64("1969-12-31T23:59:59.5"), "1969-12-31T23:59:59.500Z"),
        (np.datetime64("0001-01-01", "D"), "0001-01-01T00:00:00Z"),
        (np.datetime64("0001", "Y"), "0001-01-01T00:00:00Z"),
        (np.datetime64("9999-12", "M"), "9999-12-01T00:00:00Z"),
        (np.datetime64("9999-12-31T23:59:59.999999", "us"), "9999-12-31T23:59:59.999999Z"),
        (pd.Timestamp(np.datetime64("9999-12-31T23:59:59.999", "ms")), "9999-12-31T23:59:59.999Z"),
        (np.datetime64(-3000, "ps"), "1969-12-31T23:59:59.999999997Z"),
        (np.datetime64(2 * 10**9, "as"), "1970-01-01T00:00:00.000000002Z"),
        (np.datetime64(5, ("s", 25)), "1970-01-01T00:02:05Z"),
        (np.array(np.datetime64("2020-02-29")), "2020-02-29T00:00:00Z"),
        ("2020-02-29T12:00:00.123456789", "2020-02-29T12:00:00.123456789Z"),
        ("2020-02-29 12:00:00+02:00", "2020-02-29T10:00:00Z"),
        ("2020-02-29", "2020-02-29T00:00:00Z"),
        ("2020-02-29T12:00", "2020-02-29T12:00:00Z"),
    ],
)
def test_times_are_exact(all_types, value, expected):
    """Times are exact to the nanosecond; without a zone they are in UTC."""
    assert all_types.read_by_server({"moment": value})["moment"] == expected


def test_nanoseconds_come_back_as_microseconds(all_types):
    """A datetime has only microseconds, so further digits are cut off."""
    answer = all_types.read_by_client({"moment": np.datetime64("2020-02-29T12:00:00.123456789")})
    assert answer["moment"] == dt.datetime(2020, 2, 29, 12, 0, 0, 123456, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def arrays():
    """A model of tensors of several types, with an optional column."""
    fields = [
        Column("double", Tensor("float64", (-1, 2))),
        Column("single", Tensor("float32", (-1, 2))),
        Column("small", Tensor("int32", (-1, 2))),
        Column("flags", Tensor("bool", (-1, 2))),
        Column("words", Tensor("object", (-1, 2))),
        Column("x", Scalar(DataType.DOUBLE), required=False),
        Column("n", Scalar(DataType.LONG), required=False),
        Column("s", Scalar(DataType.STRING), required=False),
        Column("f", Scalar(DataType.FLOAT), required=False),
    ]
    return WireModel(Contract(Record("input", fields), Record("output", fields)))


@pytest.mark.parametrize(
    "value",
    [
        {"weight": 1.5, "values": [0.5]},
        {"weight": 1.5, "values": ["a"]},
        [1, 2],
        ["a", "b"],
    ],
)
def test_the_first_matching_alternative_is_used(all_types, value):
    """If several alternatives match the value, the first one is used."""
    result = all_types.read_by_server({"shapes": value})["shapes"]
    assert result == value


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("double", np.array([[1.5, -0.0], [math.inf, 5e-324]])),
        ("double", np.array([[1.5, -0.0], [2.5, 5e-324]], ">f8")),
        ("double", np.asfortranarray([[1.5, 2.5], [3.5, 4.5]])),
        ("double", np.array([[1, 2], [3, 2**53]])),
        ("double", np.array([[1, 2], [3, 255]], "u1")),
        ("double", np.array([[0.1, 2]], "f4")),
        ("single", np.array([[0.1, -math.inf]])),
        ("single", np.array([[3.4028235e38, -3.4028235677973362e38]])),
        ("single", np.array([[0.1, 1.0]], "f4")),
        ("single", np.array([[1, 2]])),
        ("small", np.array([[2**31 - 1, -(2**31)]])),
        ("small", np.zeros((0, 2), "i8")),
        ("flags", np.array([[True, False]])),
        ("words", np.array([["a", "é"]])),
        ("words", np.array([["a", "é"]], object)),
    ],
)
def test_arrays_equal_their_nested_lists(arrays, name, array):
    """An array of any type, order and layout equals its nested list, and its shape is kept."""
    message = arrays.message({name: array})
    assert message == arrays.message({name: array.tolist()}) or not array.size
    result = getattr(message, name)
    expected = array.astype("f4") if name == "single" else array
    assert (list(result.shape), list(result.data)) == (list(array.shape), expected.ravel().tolist())
    assert tensors.read(result) == expected.tolist()


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("double", [[1.0], [1.0, 2.0]], ValueError, "double: the lists within are not all of one size"),
        ("double", [[1.0, 2.0], 3.0], ValueError, "double: the lists within are not all of one size"),
        ("double", np.array([["a", "b"]]), TypeError, "double: an array of <U1 does not fit"),
        ("double", np.array([[1, 2**53 + 1]]), ValueError, "double: 9007199254740993 is not a float"),
        ("single", np.array([[1e39, 0]]), ValueError, r"single: 1e\+39 is too large"),
        ("single", [[1e39, 0.0]], ValueError, r"single: 1e\+39 is too large"),
        ("single", np.array([[3.4028235677973366e38]]), ValueError, "single: .* is too large"),
        ("double", np.ma.array([[1.0, 5.0]], mask=[[False, True]]), ValueError, "double: the array has masked values"),
        ("double", [np.ma.array([1.0, 5.0], mask=[False, True])], TypeError, "double: .*Masked"),
        ("double", np.array([[5]], "m8[ns]"), TypeError, "double: an array of timedelta64"),
        ("double", ENDLESS, ValueError, "double: it is nested too deeply, or contains itself"),
        ("small", np.array([[0.5, 1]]), TypeError, "small: an array of float64 does not fit"),
        ("small", np.array([[2**31, 1]]), ValueError, "small: 2147483648 is not within"),
        ("flags", np.array([[0, 1]]), TypeError, "flags: an array of int64 does not fit"),
        ("words", [["a", 1]], TypeError, "words: int is not a text"),
    ],
)
def test_invalid_arrays_are_refused(arrays, name, value, error, message):
    """Invalid arrays are refused with the name of the field."""
    with pytest.raises(error, match=message):
        arrays.message({name: value})


def test_an_element_may_be_an_array_without_a_dimension(arrays):
    """An element may be a numpy array without dimensions."""
    assert arrays.message({"double": [[np.array(0.5), 1.0]]}) == arrays.message({"double": [[0.5, 1.0]]})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("s", ["a", None]),
        ("n", [1, None]),
        ("n", pd.array([1, None], "Int64")),
        ("b", [True, None]),
    ],
)
def test_missing_required_values_in_a_frame(name, values):
    """The error names the row, also if pandas has NaN for the missing value."""
    kinds = {"s": DataType.STRING, "n": DataType.LONG, "b": DataType.BOOLEAN}
    record = Record("input", [Column(name, Scalar(kinds[name]))])
    typed_model = WireModel(Contract(record, record))
    with pytest.raises(ValueError, match=rf"{name}\[1\]: there is no value for this row"):
        typed_model.batch(pd.DataFrame({name: values}))


def test_a_nullable_column_carries_the_number_of_rows():
    """MLflow refuses null integers, and reads null booleans as False, so another column carries the number of rows."""
    kinds = {"flag": DataType.BOOLEAN, "whole": DataType.LONG, "data": DataType.BINARY, "text": DataType.STRING}
    columns_of_all = [Column(name, Scalar(column_type), required=False) for name, column_type in kinds.items()]
    for count, carrier in ((4, "text"), (3, "whole"), (1, "flag")):
        record = Record("input", columns_of_all[:count])
        message = WireModel(Contract(record, record)).batch([{}, {}])
        assert {field.name for field, _ in message.ListFields()} == {carrier, f"{carrier}_nulls"}
        assert list(getattr(message, f"{carrier}_nulls")) == [0, 1]


def test_columns_of_a_frame_equal_those_of_its_records(arrays):
    """Columns equal those of records, for all dtypes of pandas; NaN in an optional column is null, like None and NaT."""
    frame = pd.DataFrame(
        {
            "x": [1.5, math.nan, 0.0],
            "n": [1.0, math.nan, 3.0],
            "s": ["a", None, ""],
            "f": np.array([0.5, 1, math.nan], "f4"),
        }
    )
    records = [{"x": 1.5, "n": 1, "s": "a", "f": 0.5}, {"f": 1.0}, {"x": 0.0, "n": 3, "s": ""}]
    expected = arrays.batch(records)
    assert list(expected.x_nulls) == [1]
    for variant in (frame, frame.astype({"n": "Int64", "s": "string"}), frame.astype(object)):
        assert arrays.batch(variant) == expected
    assert list(arrays.batch([{"x": math.nan}]).x_nulls) == []


def test_rows_without_any_value(arrays):
    """Rows without any value are still counted."""
    message = arrays.batch([{}, {}])
    assert (list(message.x), list(message.x_nulls)) == ([0.0, 0.0], [0, 1])


def test_none_is_null_in_any_valued_fields(all_types):
    """In any-valued fields None is null, in rows as in single records; only an absent field has no value."""
    for rows in ([{"anything": None}, {}, {"anything": 1}], pd.DataFrame({"anything": [None, "x", 1]})):
        message = all_types.batch(rows)
        assert message.anything[0].HasField("null_value")
        assert list(message.anything_nulls) == ([1] if isinstance(rows, list) else [])


def test_tensors_of_rows_are_one_tensor(arrays):
    """Rows in dicts, arrays or lists become one tensor."""
    rows = np.arange(6.0).reshape(3, 2)
    message = arrays.batch([{"double": row} for row in rows])
    assert (list(message.double.shape), list(message.double.data)) == ([3, 2], rows.ravel().tolist())
    assert arrays.batch([{"double": row.tolist()} for row in rows]) == message


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([{"x": 1.0}, {"x": "a"}], TypeError, r"x\[1\]: str is not a number"),
        ([{"x": 1.0}, {"y": 1.0}], TypeError, r"\[1\]\.y: there is no such field"),
        ([{"double": [1.0, 2.0]}, {"x": 1.0}], ValueError, r"double\[1\]: there is no value for this row"),
        ([{"double": [1.0, 2.0]}, {"double": [1.0]}], ValueError, "double: the lists within"),
        ([[1.0, 2.0]], TypeError, "the model's columns have names, list has none"),
        (pd.DataFrame([[1.0, 2.0]], columns=["x", "x"]), TypeError, "several columns for 'x'"),
        (pd.DataFrame({"z": [1.0]}), TypeError, "z: there is no such field"),
        (pd.DataFrame({"z": []}), TypeError, "z: there is no such field"),
        ([None], TypeError, r"\[0\]: NoneType is not a row"),
        ([{"x": 1.0}, pd.Series({"x": 1.0})], TypeError, r"\[1\]: pandas.* is not a row"),
        ([{"x": np.timedelta64(5, "ns")}], TypeError, r"x\[0\]: numpy\.timedelta64"),
        (pd.DataFrame({"x": pd.to_timedelta([5, 6])}), TypeError, r"x\[0\]: pandas.*Timedelta is not a number"),
    ],
)
def test_invalid_rows_are_refused(arrays, rows, error, message):
    """The error has the name of the column and the index of the row."""
    with pytest.raises(error, match=message):
        arrays.batch(rows)


def test_a_required_column_has_a_value_in_each_row(all_types):
    """A required column cannot leave out a row, so the client names the row without a value."""
    record = Record("input", [Column("a", Scalar(DataType.LONG)), Column("b", Scalar(DataType.LONG))])
    typed_model = WireModel(Contract(record, record))
    with pytest.raises(ValueError, match=r"b\[1\]: there is no value for this row"):
        typed_model.batch([{"a": 1, "b": 1}, {"a": 2}])
    assert not typed_model.batch([{"a": 1}, {"a": 2}]).b


@settings(max_examples=examples(50), deadline=None)
@given(rows=st.lists(RECORDS, min_size=1, max_size=4))
def test_a_batch_equals_its_rows(all_types, rows):
    """Rows in columns hold the same values as messages of single rows."""
    message = all_types.batch(rows)
    result = columns.rows_of(message, all_types.batch_rpc.request)
    expected = [reader.read_record(all_types.message(row), all_types.single_rpc.request) for row in rows]
    assert exact(result) == exact(expected)
