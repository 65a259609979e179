"""services/status.py: every error fits into the trailers, whatever its text."""

import base64
from urllib.parse import quote

import grpc
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from mlflow_grpc.errors import FieldViolation, InvalidPayload, Status
from mlflow_grpc.services import status

LIMIT = 3000


def on_the_wire(message, trailers):
    """Returns the size of the trailers in HTTP/2, with the overhead of 32 bytes each by RFC 9113."""
    size = len("grpc-message") + len(quote(message, safe=" ")) + 32
    for key, value in trailers:
        size += len(key) + len(base64.b64encode(value) if isinstance(value, bytes) else value) + 32
    return size


@given(
    st.text(max_size=5000),
    st.lists(st.builds(FieldViolation, st.text(max_size=500), st.text(max_size=500)), max_size=40),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=128),
)
def test_trailers_stay_under_3_kb(message, violations, request_id):
    """Long and exotic texts are cut, and the result still parses."""
    error = InvalidPayload(message, violations=tuple(violations), error_class="SCHEMA_ENFORCEMENT_FAILED")
    code, text, trailers = status.of_error(error, request_id=request_id, model="m" * 128)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert on_the_wire(text, trailers) < LIMIT
    parsed = status_pb2.Status.FromString(dict(trailers)["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert parsed.details[0].Unpack(info)
    assert info.metadata["request_id"] == request_id


def test_short_texts_are_not_cut():
    """A text that fits is not cut."""
    violations = tuple(FieldViolation(f"column_{number}", "must be double (required)") for number in range(8))
    _, text, trailers = status.of_error(InvalidPayload("é wrong", violations=violations), request_id="r", model="m")
    parsed = status_pb2.Status.FromString(dict(trailers)["grpc-status-details-bin"])
    bad_request = error_details_pb2.BadRequest()
    assert parsed.details[1].Unpack(bad_request)
    assert text == parsed.message == "é wrong"
    assert [item.field for item in bad_request.field_violations] == [item.field for item in violations]


def test_all_statuses_are_grpcs_without_unknown():
    """All statuses here are gRPC's."""
    assert {item.value for item in Status} <= {code.name for code in grpc.StatusCode} - {"OK", "UNKNOWN"}
