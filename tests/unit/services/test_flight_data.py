"""services/flight_data.py: messages equal those that protobuf reads and writes."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from mlflow_grpc import protos
from mlflow_grpc.services.flight_data import FlightData, flight_data

MESSAGE = protos.message_named("arrow.flight.protocol.FlightData")


@given(st.binary(max_size=300), st.binary(max_size=20), st.binary(max_size=20), st.lists(st.text(max_size=3)))
def test_protobuf_reads_and_writes_the_same(body, header, app_metadata, path):
    """Bytes of either kind have the same fields when the other reads them."""
    message = MESSAGE(data_body=body, data_header=header, app_metadata=app_metadata)
    message.flight_descriptor.path.extend(path)
    read = FlightData.FromString(message.SerializeToString())
    assert (bytes(read.data_body), read.data_header, read.app_metadata) == (body, header, app_metadata)
    assert list(read.flight_descriptor.path) == path
    assert MESSAGE.FromString(read.SerializeToString()) == message
    written = flight_data(header, memoryview(body), app_metadata).SerializeToString()
    assert MESSAGE.FromString(written) == MESSAGE(data_body=body, data_header=header, app_metadata=app_metadata)


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data):
    """Bytes that protobuf reads have the same body, and all others are refused or have the fields that are whole."""
    try:
        expected = MESSAGE.FromString(data)
    except DecodeError:
        expected = None
    try:
        read = FlightData.FromString(data)
    except DecodeError:
        assert expected is None
        return
    if expected is not None:
        assert bytes(read.data_body) == expected.data_body


@pytest.mark.parametrize("data", [b"\xc2\x3e\x05ab", b"\xc2\x3e", b"\xff" * 11, b"\x0b"])
def test_broken_messages(data):
    """A body that ends too early, a length without an end and an unknown type of field are refused."""
    with pytest.raises(DecodeError):
        FlightData.FromString(data)
