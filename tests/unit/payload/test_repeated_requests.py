"""Requests of one row in a known form: read without a parser, and only if they are exactly of that form."""

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from mlflow_grpc.calls.inference_models import REQUEST
from mlflow_grpc.payload.tensors.repeated import MAX_FORMS, RepeatedRequest, RequestReader, parsed
from tests.support import tensors

NAMES = ["a", "b", "c"]


def request(values: Any = (1.0, 2.0, 3.0), *, datatype: str = "FP64", names: list[str] = NAMES, **more: Any) -> Any:
    made = tensors.request("m", *((name, datatype, [value]) for name, value in zip(names, values, strict=True)))
    for name, value in more.items():
        setattr(made, name, value)
    return made


def reader_of(message: Any, datatype: str = "FP64") -> RequestReader:
    """Returns a reader that remembers the form of a request."""
    reader = RequestReader(REQUEST)
    reader.remember(message, [tensor.name for tensor in message.inputs], datatype)
    return reader


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "INT64", "INT32"])
def test_a_request_of_a_known_form(datatype):
    """Its numbers, its names and its id are those that protobuf reads."""
    reader = reader_of(request(datatype=datatype), datatype)
    for sent in (
        request((-4, 5, 6), datatype=datatype),
        request((0, 0, 0), datatype=datatype, id="x" * 5_000, model_version="7"),
        request((1, 2, 3), datatype=datatype, model_name=""),
    ):
        data = sent.SerializeToString()
        read = reader.FromString(data)
        assert type(read) is RepeatedRequest
        assert read.values().tolist() == [np.frombuffer(raw, read.values().dtype)[0] for raw in sent.raw_input_contents]
        assert (read.model_name, read.model_version, read.id) == (sent.model_name, sent.model_version, sent.id)
        assert (parsed(read), read.ByteSize()) == (sent, len(data))


def test_parameters_and_outputs():
    """Parameters may differ; requested outputs are part of the form."""
    first = request()
    first.outputs.add(name="y")
    reader = reader_of(first)
    changed = REQUEST.FromString(first.SerializeToString())
    changed.parameters["p"].int64_param = 3
    read = reader.FromString(changed.SerializeToString())
    assert (read.parameters["p"].int64_param, [output.name for output in read.outputs]) == (3, ["y"])
    assert type(reader.FromString(request().SerializeToString())) is REQUEST


OTHERS = [
    request(names=["a", "b", "x"]),
    request(datatype="FP32"),
    tensors.request("m", *((name, "FP64", [1.0, 2.0]) for name in NAMES)),
    tensors.request("m", *((name, "FP64", [1.0]) for name in NAMES), shapes={"a": [1]}),
    tensors.request("m", *((name, "FP64", [1.0]) for name in NAMES), content_types={"a": "np"}),
    tensors.request("m", *((name, "FP64", [1.0]) for name in NAMES), is_raw=False),
    REQUEST(),
]


@pytest.mark.parametrize("other", OTHERS)
def test_other_requests_are_parsed(other):
    """A request of another form is a message of protobuf."""
    read = reader_of(request()).FromString(other.SerializeToString())
    assert type(read) is REQUEST
    assert read == other


def test_fields_before_a_known_form_are_parsed():
    """Inputs, outputs or contents before a known form are not lost, and what does not parse is an error."""
    reader, data = reader_of(request()), request().SerializeToString()
    for more in (
        REQUEST(inputs=request().inputs[:1]),
        REQUEST(outputs=[{"name": "y"}]),
        REQUEST(raw_input_contents=[b"12345678"]),
    ):
        read = reader.FromString(more.SerializeToString() + data)
        assert type(read) is REQUEST
        assert read == REQUEST.FromString(more.SerializeToString() + data)
    assert len(data) < 128
    swallowing = b"\x7a" + bytes([len(data)]) + data  # An unknown field that holds all of the others.
    assert reader.FromString(swallowing) == REQUEST.FromString(swallowing)
    assert not reader.FromString(swallowing).inputs
    with pytest.raises(DecodeError):
        reader.FromString(b"\xff" + data)


@given(position=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_changed_byte(position, byte):
    """Whatever byte changes, the request is read as protobuf reads it, or is an error as it is for protobuf."""
    data = bytearray(request((1.5, -2.5, 3.5), id="an id").SerializeToString())
    data[position % len(data)] = byte
    changed = bytes(data)
    reader = reader_of(request())
    try:
        expected = REQUEST.FromString(changed)
    except DecodeError:
        with pytest.raises(DecodeError):
            reader.FromString(changed)
        return
    read = reader.FromString(changed)
    assert parsed(read).SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
    if type(read) is RepeatedRequest:
        assert read.values().tobytes() == b"".join(expected.raw_input_contents)
        assert (read.id, read.model_name) == (expected.id, expected.model_name)
        assert list(read.inputs) == list(expected.inputs)


def test_the_number_of_forms_is_limited():
    """The latest forms are remembered, each once."""
    reader = RequestReader(REQUEST)
    sent = [request(names=["a", "b", f"n{index}"]) for index in range(MAX_FORMS + 1)]
    forms = [reader.remember(message, [tensor.name for tensor in message.inputs], "FP64") for message in sent]
    assert reader.remember(sent[-1], forms[-1].names, "FP64") is forms[-1]
    kinds = [type(reader.FromString(message.SerializeToString())) for message in sent]
    assert kinds == [REQUEST, *[RepeatedRequest] * MAX_FORMS]
