"""A model's output is written as MLflow writes it, and its exceptions are distinguished from invalid calls."""

import json
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from mlflow.exceptions import ERROR_CODE_TO_HTTP_STATUS
from mlflow.protos.databricks_pb2 import ErrorCode

from mlflow_grpc.hosting.pyfunc import fetching
from mlflow_grpc.hosting.pyfunc.load import load_pyfunc
from mlflow_grpc.hosting.pyfunc.model_errors import status_of_error_code
from mlflow_grpc.payload.mlflow_json.codec import ScoringCodec
from tests.parity.conftest import oracle_of
from tests.support import misbehaving
from tests.support.servers import Caller, serving


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("misbehaving") / "model"
    misbehaving.save(path)
    return path


@pytest.fixture(scope="module")
def call(model):
    loaded = load_pyfunc(fetching.fetch(str(model)), name="misbehaving")
    with serving(loaded, ScoringCodec(loaded.metadata, loaded.loader_module)) as server, Caller(server.address) as call:
        yield call


@pytest.fixture(scope="module")
def oracle(model):
    return oracle_of(model)


def payload(verb, name):
    return json.dumps({"inputs": [verb, name]})


@pytest.mark.parametrize("name", misbehaving.OUTPUTS)
@pytest.mark.parametrize("wrap", [False, True], ids=["wrapped", "bare"])
def test_outputs(call, oracle, name, wrap):
    """An answer has MLflow's text; an output that MLflow cannot write is INTERNAL."""
    text = json.dumps({"input": "x", "inputs": ["return", name]}) if wrap else payload("return", name)
    status, body = oracle(text, "application/json")
    outcome = call.outcome(text)
    if status == 200:
        assert outcome == ("OK", body)
    else:
        assert outcome[0] == "INTERNAL"
        assert "\n" not in outcome[1]


def failure(call, text, **metadata):
    with pytest.raises(grpc.RpcError) as caught:
        call(text, **metadata)
    error: Any = caught.value
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    size = sum(len(key) + len(value) for key, value in error.trailing_metadata()) + len(error.details())
    assert size < 3000
    wire = json.dumps([error.details(), repr(trailers), str(status)])
    assert "s3cret" not in wire
    assert "/srv" not in wire
    assert "Traceback" not in wire
    return error.code().name, info, status


@pytest.mark.parametrize("name", [*misbehaving.RAISES, "cancelled"])
def test_a_model_that_raises(call, name):
    """Any exception of a model, including SystemExit, is INTERNAL without its text, and does not affect later calls."""
    code, info, _ = failure(call, payload("raise", name), x_request_id="my-id")
    assert (code, info.reason, info.metadata["request_id"]) == ("INTERNAL", "INTERNAL_ERROR", "my-id")
    assert call(payload("return", "scalar")) == '{"predictions": 3}'


NATURAL = {
    "BAD_REQUEST": "INVALID_ARGUMENT",
    "INVALID_PARAMETER_VALUE": "INVALID_ARGUMENT",
    "RESOURCE_DOES_NOT_EXIST": "NOT_FOUND",
    "NOT_FOUND": "NOT_FOUND",
    "ENDPOINT_NOT_FOUND": "NOT_FOUND",
    "PERMISSION_DENIED": "PERMISSION_DENIED",
    "UNAUTHENTICATED": "UNAUTHENTICATED",
    "CUSTOMER_UNAUTHORIZED": "UNAUTHENTICATED",
    "RESOURCE_ALREADY_EXISTS": "ALREADY_EXISTS",
    "ALREADY_EXISTS": "ALREADY_EXISTS",
    "REQUEST_LIMIT_EXCEEDED": "RESOURCE_EXHAUSTED",
    "RESOURCE_EXHAUSTED": "RESOURCE_EXHAUSTED",
    "TEMPORARILY_UNAVAILABLE": "UNAVAILABLE",
    "NOT_IMPLEMENTED": "UNIMPLEMENTED",
    "DEADLINE_EXCEEDED": "DEADLINE_EXCEEDED",
    "CANCELLED": "CANCELLED",
    "ABORTED": "ABORTED",
    "DATA_LOSS": "DATA_LOSS",
    "INTERNAL_ERROR": "INTERNAL",
}


@pytest.mark.parametrize("name", NATURAL)
def test_an_mlflow_exception_has_the_status_of_its_code(call, name):
    """The error code of an MlflowException becomes the reason, and its matching gRPC status the status."""
    code, info, _ = failure(call, payload("mlflow", name))
    assert (code, info.reason) == (NATURAL[name], name)


def test_every_error_code_of_mlflow_has_a_status():
    """No error code of MLflow becomes UNKNOWN, and those for invalid requests do not become INTERNAL."""
    for name in ErrorCode.keys():  # noqa: SIM118 - a protobuf enum is no dict
        status = status_of_error_code(name)
        assert grpc.StatusCode[status.value] is not grpc.StatusCode.OK
        assert (400 <= ERROR_CODE_TO_HTTP_STATUS.get(name, 500) < 500) <= (status.value != "INTERNAL")
