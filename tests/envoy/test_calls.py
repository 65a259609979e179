"""Calls through Envoy with all protocols: gRPC, JSON and gRPC-Web."""

import base64
import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import mlflow
import pandas as pd
import pytest
import requests
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status
from mlflow_grpc_client import Client

from mlflow_grpc import protos
from tests.client.conftest import Iris, iris  # noqa: F401 - a fixture
from tests.envoy.pair import Pair
from tests.process.conftest import Held
from tests.support.envoy import Envoy
from tests.support.servers import Caller

pytestmark = pytest.mark.slow

SERVICE = "model_grpc_service.ModelgRPCService"
RECORD = {"sepal_length_cm": 6.7, "sepal_width_cm": 3.0, "petal_length_cm": 5.2, "petal_width_cm": 2.3}
BUFFER_BYTES = 1024 * 1024
"""Envoy's default for the buffer of a call."""
LARGE_ROWS = 100_000
LARGE = json.dumps({"dataframe_split": {"columns": list(RECORD), "data": [list(RECORD.values())] * LARGE_ROWS}})
DEFAULT_TIMEOUT_S = 15.0
"""Time limit of a call in Envoy, unless a configuration turns it off."""


@pytest.fixture(scope="module")
def envoy(iris: Iris, tmp_path_factory):  # noqa: F811 - a fixture
    """Envoy in front of the example model, with the descriptor set of its server."""
    folder = tmp_path_factory.mktemp("envoy")
    descriptor_set = folder / "model_service.binpb"
    with Client(iris.address) as client:
        descriptor_set.write_bytes(client.proto_file().descriptor_set)
    running = Envoy([int(iris.address.rpartition(":")[2])], folder, descriptor_set=descriptor_set)
    with running.process:
        running.wait_until_up(1)
        yield running


@pytest.fixture(scope="module")
def expected(iris: Iris) -> str:  # noqa: F811 - a fixture
    """MLflow's prediction for RECORD."""
    (prediction,) = mlflow.pyfunc.load_model(str(iris.path)).predict(pd.DataFrame([RECORD]))
    return str(prediction)


def post(envoy: Envoy, path: str, body: Any) -> requests.Response:
    return requests.post(f"http://{envoy.address}/{path}", json=body, timeout=30)


def text(*records: Any) -> str:
    return json.dumps({"dataframe_records": records})


def test_json_reaches_typed_rpcs(envoy, expected):
    """Single records, rows in columns, streams of records and the list of models are JSON."""
    assert post(envoy, f"{SERVICE}/iris_predict", RECORD).json() == {"prediction": expected}
    columns = {name: [value, value] for name, value in RECORD.items()}
    assert post(envoy, f"{SERVICE}/iris_predict_batch", columns).json() == {"prediction": [expected, expected]}
    first, second = post(envoy, f"{SERVICE}/iris_predict_many", [RECORD, {}]).json()
    assert first == {"prediction": expected}
    assert second["error"]["reason"] == "INVALID_PARAMETER_VALUE"
    (model,) = post(envoy, f"{SERVICE}/get_models", {}).json()["models"]
    assert model["predict_operation"] == "iris_predict"


def test_json_reaches_mlflow_proto(envoy, expected):
    """The payloads of MLflow are texts in JSON, for single calls and for streams."""
    answer = post(envoy, "MLflow/predict", {"value": text(RECORD)}).json()
    assert json.loads(answer["value"]) == {"predictions": [expected]}
    first, second = post(envoy, "MLflowStream/predict_many", [{"value": text(RECORD)}, {"value": "x"}]).json()
    assert json.loads(first["value"]) == {"predictions": [expected]}
    assert second["error"]["reason"] == "BAD_REQUEST"


def test_large_json(envoy, expected):
    """Requests and answers in JSON may exceed the buffer of 1 MiB that Envoy has by default."""
    answer = post(envoy, "MLflow/predict", {"value": LARGE})
    assert answer.status_code == 200, answer.text[:200]
    assert len(answer.content) > BUFFER_BYTES
    assert json.loads(answer.json()["value"]) == {"predictions": [expected] * LARGE_ROWS}


class Refusing(grpc.GenericRpcHandler):
    """A server that is healthy and refuses all other calls, as one that drains before Envoy knows."""

    def __init__(self) -> None:
        self.refusals = 0

    def service(self, details: Any) -> Any:
        """Returns the handler of any method."""
        if details.method == "/grpc.health.v1.Health/Check":
            serving = health_pb2.HealthCheckResponse(status="SERVING").SerializeToString()
            return grpc.unary_unary_rpc_method_handler(lambda request, context: serving)
        return grpc.unary_unary_rpc_method_handler(self._refuse)

    def _refuse(self, request: bytes, context: grpc.ServicerContext) -> None:
        self.refusals += 1
        context.abort(grpc.StatusCode.UNAVAILABLE, "draining")


def test_large_calls_are_repeated(iris, expected, tmp_path):  # noqa: F811 - a fixture
    """Envoy repeats a refused call of more than 1 MiB on another server."""
    refusing = Refusing()
    server = grpc.server(ThreadPoolExecutor(2), [refusing], options=[("grpc.max_receive_message_length", -1)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    running = Envoy([int(iris.address.rpartition(":")[2]), port], tmp_path)
    with running.process, Caller(running.address) as call:
        running.wait_until_up(2)
        deadline = time.monotonic() + 60
        while not refusing.refusals:  # Envoy chooses the server at random.
            assert json.loads(call(LARGE)) == {"predictions": [expected] * LARGE_ROWS}
            assert time.monotonic() < deadline
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("path", "body"),
    [(f"{SERVICE}/iris_predict", {"sepal_length_cm": 1}), ("MLflow/predict", {"value": text({"sepal_length_cm": 1})})],
)
def test_json_errors_have_details(envoy, path, body):
    """An error of the server is JSON with code, message, the reason, and the columns at fault."""
    response = post(envoy, path, body)
    assert (response.status_code, response.headers["content-type"]) == (400, "application/json")
    status = response.json()
    assert status["code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "sepal_width_cm" in status["message"]
    info, bad_request = status["details"]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert (info["reason"], info["domain"]) == ("INVALID_PARAMETER_VALUE", "mlflow.org")
    assert info["metadata"]["request_id"] == response.headers["x-request-id"]
    fields = [violation["field"] for violation in bad_request["field_violations"]]
    assert fields == ["sepal_width_cm", "petal_length_cm", "petal_width_cm"]


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        (f"{SERVICE}/iris_predict", RECORD | {"sepal_length_cm": "x"}, "sepal_length_cm: invalid value"),
        (f"{SERVICE}/iris_predict?x=1", RECORD, 'Could not find field "x"'),
    ],
)
def test_json_that_does_not_fit_the_message(envoy, path, body, sentence):
    """Envoy refuses values of a wrong type, and unknown parameters, with a sentence as text."""
    response = post(envoy, path, body)
    assert (response.status_code, response.headers["content-type"]) == (400, "text/plain")
    assert sentence in response.text


@pytest.mark.parametrize("path", [f"{SERVICE}/iris_forecast", "invocations", ""])
def test_unknown_paths_reach_no_server(envoy, path):
    """Envoy answers unknown paths with 404, so that they do not count as failures of a server."""
    before = envoy.count("upstream_rq_total")
    response = post(envoy, path, RECORD)
    assert (response.status_code, response.text) == (
        404,
        "No such RPC: POST /<service>/<method> with content-type application/json.\n",
    )
    assert envoy.count("upstream_rq_total") == before


def test_unknown_json_fields_are_dropped(envoy, expected):
    """Envoy ignores fields that the message does not have, as docs/envoy.md warns."""
    assert post(envoy, f"{SERVICE}/iris_predict", RECORD | {"sepal": 1}).json() == {"prediction": expected}


@pytest.mark.parametrize("is_text", [False, True])
def test_grpc_web(envoy, expected, is_text):
    """Binary gRPC-Web, and gRPC-Web in base64, get the answer and the trailers."""
    content_type = "application/grpc-web-text" if is_text else "application/grpc-web"
    message, trailers = web_frames(web_call(envoy, text(RECORD), content_type), is_text=is_text)
    output: Any = protos.Output.FromString(message)
    assert json.loads(output.value) == {"predictions": [expected]}
    assert b"grpc-status:0\r\n" in trailers


def test_grpc_web_errors_have_details(envoy):
    """An error has its status and details in headers."""
    headers = web_call(envoy, "x", "application/grpc-web").headers
    assert headers["grpc-status"] == str(grpc.StatusCode.INVALID_ARGUMENT.value[0])
    assert headers["grpc-message"].startswith("The payload is not valid JSON")
    assert "grpc-status-details-bin" in headers


def web_call(envoy: Envoy, payload: str, content_type: str) -> requests.Response:
    """Calls MLflow.predict over gRPC-Web (grpc/doc/PROTOCOL-WEB.md)."""
    message = protos.Input(value=payload).SerializeToString()
    frame = b"\0" + len(message).to_bytes(4, "big") + message
    response = requests.post(
        f"http://{envoy.address}/MLflow/predict",
        data=base64.b64encode(frame) if content_type.endswith("text") else frame,
        headers={"content-type": content_type, "accept": content_type, "x-grpc-web": "1"},
        timeout=30,
    )
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(content_type)
    return response


def web_frames(response: requests.Response, *, is_text: bool) -> list[bytes]:
    """Returns the contents of the frames: the message, and the trailers."""
    # Frames in base64 are padded one by one.
    encoded = response.content.replace(b"=", b"=|").replace(b"=|=|", b"==|").split(b"|")
    data = b"".join(map(base64.b64decode, encoded)) if is_text else response.content
    frames = []
    while data:
        length = int.from_bytes(data[1:5], "big")
        frames.append(data[5 : 5 + length])
        data = data[5 + length :]
    return frames


def test_grpc_errors_are_unchanged(envoy):
    """A gRPC client gets status and details of the server, whose request id is the UUID that Envoy has made."""
    with Caller(envoy.address) as call, pytest.raises(grpc.RpcError) as caught:
        call(text({"sepal_length_cm": 1}))
    status: Any = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert info.reason == "INVALID_PARAMETER_VALUE"
    request_id = info.metadata["request_id"]
    assert str(uuid.UUID(request_id)) == request_id  # The server's own ids are shorter.
    trailers: dict[str, Any] = dict(caught.value.trailing_metadata())  # type: ignore[arg-type]
    assert trailers["x-request-id"] == request_id


def test_the_server_knows_the_callers_deadline(tmp_path):
    """The server ends a call at the caller's deadline, which Envoy passes on."""
    with Pair(tmp_path) as pair, Caller(pair.envoy.address) as call:
        held = Held(call, tmp_path, timeout=0.5)
        assert held.result()[0] == "DEADLINE_EXCEEDED"
        pair.envoy.wait_until(lambda: call_lines(pair) != [])
        (line,) = call_lines(pair)
        assert line["status"] in {"DEADLINE_EXCEEDED", "CANCELLED"}
        assert line["duration_ms"] < 5000  # The server's own time limit is 60 s.
        held.let_go()


def call_lines(pair: Pair) -> list[dict[str, Any]]:
    """Returns the lines that the servers have logged about calls."""
    lines = [json.loads(line) for server in pair.servers for line in server.stderr]
    return [line for line in lines if line.get("method") == "/MLflow/predict"]


@pytest.mark.scale
def test_envoy_has_no_time_limit_of_its_own(tmp_path):
    """A call longer than Envoy's default time limit is answered."""
    with Pair(tmp_path) as pair, Caller(pair.envoy.address) as call:
        held = Held(call, tmp_path, timeout=60)
        held._thread.join(DEFAULT_TIMEOUT_S + 1)
        assert held._thread.is_alive()
        held.let_go()
        assert held.result()[0] == "OK"
