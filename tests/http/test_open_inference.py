"""The Open Inference Protocol over HTTP: its routes, its two forms of tensors, and what it refuses."""

import gzip
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import requests
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema

from mlflow_grpc import protos
from mlflow_grpc.config import ModelConfig
from tests.parity.test_typed import in_any_order
from tests.support import tensors, zoo
from tests.support.models import GatedModel, PlainCodec
from tests.support.servers import Caller, InProcess, serving, serving_models
from tests.support.shared import made_once
from tests.support.tables import saved

IRIS = ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"]
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]
LABELS = ["setosa", "virginica"]
LENGTH = "Inference-Header-Content-Length"
ZOO = ["rows_every_column", "rows_optional", "rows_params", "rows_tensors"]


@pytest.fixture(scope="module")
def server(iris_path, tmp_path_factory) -> Iterator[InProcess]:
    """Two versions of a model, models of the zoo that describe their input, and one that cannot be loaded."""
    models: list[tuple[ModelConfig, Any]] = [
        (ModelConfig(uri=str(iris_path), name="iris", version=version, endpoint=True), None) for version in ("1", "2")
    ]
    for name in ZOO:
        path = made_once(tmp_path_factory, f"zoo_{name}", partial(zoo.save, name))
        models.append((ModelConfig(uri=str(path), name=name, endpoint=True), None))
    models.append((ModelConfig(uri="models:/broken/1", name="broken", endpoint=True), "it is broken"))
    with serving_models(models, http_port=0) as running:
        yield running


@pytest.fixture(scope="module")
def caller(server) -> Iterator[tensors.TensorCaller]:
    with Caller(server.address) as call:
        yield tensors.TensorCaller(call.channel)


def tensor(name: str, datatype: str, data: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data), 1], "data": data, **more}


def iris(rows: list[list[float]] = ROWS, **more: Any) -> dict[str, Any]:
    """Makes a request in JSON for rows of iris flowers."""
    columns = zip(IRIS, zip(*rows, strict=True), strict=True)
    return {"inputs": [tensor(name, "FP64", list(column)) for name, column in columns], **more}


def get(server: InProcess, path: str) -> requests.Response:
    return requests.get(f"{server.url}/v2{path}", timeout=30)


def post(server: InProcess, model: str, body: Any, **headers: str | bytes) -> requests.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return requests.post(f"{server.url}/v2/models/{model}/infer", content, headers=headers, timeout=30)


def labels(answer: requests.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"][0]["data"]


def test_health(server):
    """The server is live and ready; so is a loaded model. An unknown one is a 404, a broken one a 503."""
    assert get(server, "/health/live").json() == {"live": True}
    assert get(server, "/health/ready").json() == {"ready": True}
    assert get(server, "/models/iris/ready").json() == {"name": "iris", "ready": True}
    statuses = {
        path: get(server, f"/models/{path}/ready").status_code
        for path in ("iris", "iris/versions/1", "iris/versions/3", "broken", "nobody")
    }
    assert statuses == {"iris": 200, "iris/versions/1": 200, "iris/versions/3": 404, "broken": 503, "nobody": 404}


def test_nothing_is_ready_while_the_server_goes(iris_path):
    """Once health is NOT_SERVING, server and model are a 503, and calls are answered."""
    model = ModelConfig(uri=str(iris_path), name="iris", endpoint=True)
    with serving_models([(model, None)], http_port=0) as running:
        running.run(running.server.host.send_callers_away)
        for path in ("/health/ready", "/models/iris/ready"):
            answer = get(running, path)
            assert (answer.status_code, answer.json()["ready"]) == (503, False)
        assert labels(post(running, "iris", iris())) == LABELS


def test_descriptions_are_those_of_grpc(server, caller):
    """Metadata, configuration and index have the values of the gRPC methods, with numbers as numbers."""
    metadata = get(server, "/models/rows_every_column").json()
    theirs = caller.call("ModelMetadata", tensors.message("ModelMetadataRequest", name="rows_every_column"))
    assert metadata["inputs"] == [
        {"name": column.name, "datatype": column.datatype, "shape": list(column.shape)} for column in theirs.inputs
    ]
    assert metadata["properties"] == dict(theirs.properties)
    assert get(server, "/models/iris/versions/1").json()["versions"] == ["1", "2"]
    config = get(server, "/models/iris/config").json()
    assert (config["name"], config["max_batch_size"]) == ("iris", 2**31 - 1)
    assert [(column["name"], column["data_type"], column["dims"]) for column in config["input"]] == [
        (name, "TYPE_FP64", [1]) for name in IRIS
    ]
    assert "dynamic_batching" in config
    server_metadata = get(server, "").json()
    assert server_metadata["name"] == "mlflow-grpc"
    assert "binary_tensor_data" in server_metadata["extensions"]


def test_index(server):
    """The index lists all models, or those that are ready."""
    url = f"{server.url}/v2/repository/index"
    index = requests.post(url, timeout=30).json()
    assert index[0] == {"name": "iris", "version": "1", "state": "READY", "reason": ""}
    assert (index[-1]["name"], index[-1]["state"]) == ("broken", "UNAVAILABLE")
    assert len(requests.post(url, json={"ready": True}, timeout=30).json()) == len(index) - 1
    for body, status in (("[]", 400), ('{"ready": 1}', 400), ("{", 400), ("x" * 70_000, 413)):
        answer = requests.post(url, body, timeout=30)
        assert answer.status_code == status
        assert answer.json().keys() == {"error"}


def test_statistics(iris_path):
    """Statistics count what came over HTTP, for one model and for all."""
    model = ModelConfig(uri=str(iris_path), name="iris", endpoint=True)
    with serving_models([(model, None)], http_port=0) as running:
        assert labels(post(running, "iris", iris())) == LABELS
        for path in ("/models/iris/stats", "/models/stats"):
            (statistics,) = get(running, path).json()["model_stats"]
            assert (statistics["name"], statistics["inference_count"]) == ("iris", 2)
            assert statistics["inference_stats"]["success"]["count"] == 1
        metrics = requests.get(f"{running.url}/metrics", timeout=30).text
    assert 'http_route="/v2/models/{name}/infer"' in metrics


def test_json(server):
    """Rows in JSON are answered in order, with names, id and version; nested data is the same as flat data."""
    answer = post(server, "iris/versions/1", iris(id="an id"), **{"x-request-id": "7"})
    assert answer.json() == {
        "model_name": "iris",
        "model_version": "1",
        "id": "an id",
        "outputs": [
            {
                "name": "output-0",
                "datatype": "BYTES",
                "shape": [2],
                "parameters": {"content_type": "str"},
                "data": LABELS,
            }
        ],
    }
    assert (answer.headers["content-type"], answer.headers["x-request-id"]) == ("application/json", "7")
    nested = iris()
    for column in nested["inputs"]:
        column["data"] = [[value] for value in column["data"]]
    assert labels(post(server, "iris", nested)) == LABELS


def test_gzip(server):
    """A body may be compressed with gzip; another compression is a 415."""
    body = gzip.compress(json.dumps(iris()).encode())
    assert labels(post(server, "iris", body, **{"content-encoding": "gzip"})) == LABELS
    answer = post(server, "iris", body, **{"content-encoding": "br"})
    assert (answer.status_code, list(answer.json())) == (415, ["error"])


def binary(request: dict[str, Any], *raw: bytes) -> tuple[bytes, dict[str, str]]:
    """Returns a body with binary tensors after the JSON, and its header."""
    text = json.dumps(request).encode()
    return text + b"".join(raw), {LENGTH: str(len(text))}


def outputs_of(answer: requests.Response) -> dict[str, Any]:
    """Returns the outputs by name, with the bytes of binary ones as their data."""
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get(LENGTH, len(answer.content)))
    offset, read = length, {}
    for output in json.loads(answer.content[:length])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            read[output["name"]] = output["data"]
        else:
            read[output["name"]] = answer.content[offset : offset + size]
            offset += size
    assert offset == len(answer.content)
    return read


def binary_iris(*, is_mixed: bool = False, **more: Any) -> tuple[bytes, dict[str, str]]:
    request = iris(**more)
    raw = []
    for column in request["inputs"][1 if is_mixed else 0 :]:
        data = np.array(column.pop("data")).tobytes()
        column["parameters"] = {"binary_data_size": len(data)}
        raw.append(data)
    return binary(request, *raw)


@pytest.mark.parametrize("is_mixed", [False, True])
def test_binary_tensors(server, is_mixed):
    """Binary inputs, with or without others in JSON, are answered in the form that the request asks for."""
    in_bytes = tensors.raw_of("BYTES", LABELS)
    for more, expected in (
        ({}, LABELS),
        ({"parameters": {"binary_data_output": True}}, in_bytes),
        ({"outputs": [{"name": "output-0", "parameters": {"binary_data": True}}]}, in_bytes),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "output-0", "parameters": {"binary_data": False}}],
            },
            LABELS,
        ),
    ):
        body, headers = binary_iris(is_mixed=is_mixed, **more)
        answer = post(server, "iris", body, **headers)
        assert outputs_of(answer) == {"output-0": expected}
        is_binary = expected == in_bytes
        assert answer.headers["content-type"] == ("application/octet-stream" if is_binary else "application/json")
        assert (LENGTH in answer.headers) is is_binary


EVERY: dict[str, tuple[str, list[Any]]] = {
    "boolean": ("BOOL", [True, False]),
    "integer": ("INT32", [-(2**31), 2**31 - 1]),
    "long": ("INT64", [2**63 - 1, -(2**63)]),
    "float": ("FP32", [0.1, float("inf")]),
    "double": ("FP64", [0.1, -0.0]),
    "string": ("BYTES", ["a", "é"]),
    "binary": ("BYTES", ["AP8=", ""]),
    "datetime": ("BYTES", ["2020-02-29T12:00:00.123456789", "1969-12-31T23:59:59.000000001"]),
}


def test_every_type(server, caller):
    """JSON and binary tensors of all types give the model what raw tensors over gRPC give it."""
    inputs = [tensor(name, datatype, data) for name, (datatype, data) in EVERY.items()]
    inputs[6]["parameters"] = {"content_type": "base64"}
    in_json = outputs_of(post(server, "rows_every_column", {"inputs": inputs}))
    raw = []
    for column in inputs:
        data = tensors.raw_of(column["datatype"], column.pop("data"))
        column["parameters"] = {**column.get("parameters", {}), "binary_data_size": len(data)}
        raw.append(data)
    body, headers = binary({"inputs": inputs}, *raw)
    as_binary = outputs_of(post(server, "rows_every_column", body, **headers))
    request = tensors.request(
        "rows_every_column",
        *((name, datatype, data) for name, (datatype, data) in EVERY.items()),
        content_types={"binary": "base64"},
    )
    over_grpc = {name: list(map(json.dumps, data)) for name, data in tensors.values(caller.infer(request)).items()}
    assert {name: list(map(json.dumps, map(json.loads, data))) for name, data in in_json.items()} == over_grpc
    assert as_binary == in_json


def test_params_and_nulls(server, caller):
    """Parameters of all types are those of gRPC; a null among floats is a missing value."""
    parameters = {
        "temperature": 0.25,
        "top_k": 7,
        "flag": True,
        "label": "z",
        "headers": {"a": 1},
        "priority": 2**64 - 1,
    }
    (ours,) = outputs_of(post(server, "rows_params", {"inputs": [tensor("a", "FP64", [1])], "parameters": parameters}))[
        "output-0"
    ]
    sent = tensors.request("rows_params", ("a", "FP64", [1.0]), temperature=0.25, top_k=7, flag=True, label="z")
    (theirs,) = tensors.values(caller.infer(sent))["output-0"]
    assert in_any_order(json.loads(ours)) == in_any_order(theirs)
    for value in (None, float("nan")):
        answer = post(server, "rows_optional", {"inputs": [tensor("need", "FP64", [value])]})
        sent = tensors.request("rows_optional", ("need", "FP64", [float("nan")]))
        assert list(map(json.loads, outputs_of(answer)["output-0"])) == tensors.values(caller.infer(sent))["output-0"]


def one(**changes: Any) -> dict[str, Any]:
    """Makes a request of one row whose first column is changed."""
    request = iris(ROWS[:1])
    request["inputs"][0] |= changes
    return request


FAULTS: list[tuple[Any, str]] = [
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b"\xff{}", "not JSON"),
    ([], "must be a JSON object"),
    ({}, "lacks inputs of the model" ),
    ({"inputs": {}}, "inputs of the request must be an array"),
    ({"inputs": [1]}, "must be a JSON object"),
    ({"inputs": [{}]}, "name of an input must be a text"),
    ({"inputs": [{}] * 70_000}, "70000 inputs"),
    (iris(id=5), "id of the request must be a text"),
    (iris(id="\ud800"), "surrogate"),
    (iris(parameters=[]), "parameters of the request must be a JSON object"),
    (iris(parameters={"a": 2**64}), "more than 64 bits"),
    (iris(outputs=[{"name": "no"}]), "no such output"),
    (iris(outputs=[{}]), "name of a requested output"),
    (one(datatype="FP65"), "its datatype must be one of BOOL"),
    (one(datatype=[]), "its datatype must be one of BOOL"),
    (one(shape=[-1, 1]), "not negative"),
    (one(shape=[True]), "not negative"),
    (one(shape="1"), "not negative"),
    (one(shape=[2, 1]), "has 1 elements, and its shape needs 2"),
    (one(shape=[2**62, 2**62]), "has 1 elements"),
    (one(shape=[1] * 40), "40 dimensions"),
    (one(data=None), "needs an array of data"),
    (one(data=["1.5"]), "no FP64"),
    (one(data=[True]), "no FP64"),
    (one(data=[10**400]), "no FP64"),
    (one(data=[[1.0], 2.0]), "beside arrays"),
    (one(datatype="FP32", data=[1e300]), "no FP32"),
    (one(datatype="INT8", data=[128]), "no INT8"),
    (one(datatype="UINT64", data=[-1]), "no UINT64"),
    (one(datatype="INT64", data=[1.0]), "no INT64"),
    (one(datatype="INT64", data=[2**64]), "no INT64"),
    (one(datatype="BOOL", data=[1]), "no BOOL"),
    (one(datatype="BF16", data=[1.0]), "BF16 has no form in JSON"),
    (one(datatype="BYTES", data=[1]), "pd_json"),
    (one(datatype="BYTES", data=["\ud800"]), "surrogate"),
    (one(parameters={"binary_data_size": 8}), "send one of the two"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "text"), FAULTS, ids=[text for _, text in FAULTS])
def test_refusals(server, body, text):
    """A request in a wrong form is a 400 that says what is wrong."""
    answer = post(server, "iris", body)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert text in answer.json()["error"]


def test_refusals_of_binary_tensors(server):
    """Sizes and lengths that the body does not have are a 400, and nothing is read past it."""
    body, headers = binary_iris()
    length = int(headers[LENGTH])
    for changed, header, text in (
        (body[:-1], str(length), "at most those that follow"),
        (body + b"x", str(length), "1 bytes after its JSON that belong to no input"),
        (body, str(length - 1), "not JSON"),
        (body, str(len(body) + 1), "length of the JSON"),
        (body, "0", "length of the JSON"),
        (body, "-1", "length of the JSON"),
        (body, "9" * 5_000, "length of the JSON"),
        (body, "²", "length of the JSON"),
    ):
        answer = post(server, "iris", changed, **{LENGTH: header.encode("latin-1")})
        assert (answer.status_code, list(answer.json())) == (400, ["error"])
        assert text in answer.json()["error"]
    for size in (-1, 2**70, "16", True, 15):
        request = iris()
        del request["inputs"][3]["data"]
        request["inputs"][3]["parameters"] = {"binary_data_size": size}
        changed, head = binary(request, np.zeros(2).tobytes())
        assert post(server, "iris", changed, **head).status_code == 400


def test_shared_memory_is_not_supported(server):
    """A tensor in shared memory is a 501."""
    answer = post(server, "iris", one(data=None, parameters={"shared_memory_region": "a"}))
    assert (answer.status_code, "no shared memory" in answer.json()["error"]) == (501, True)


def test_other_paths_and_methods(server):
    """Paths and methods that the protocol does not have are errors in its form; a slash at the end is redirected."""
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/models/iris/nothing", 404),
        ("GET", "/systemsharedmemory/status", 404),
        ("GET", "/models/iris/infer", 405),
        ("POST", "/models/iris", 405),
        ("GET", "/models/nobody", 404),
        ("GET", "/models/broken/config", 503),
        ("POST", "/models/nobody/infer", 404),
    ):
        answer = requests.request(method, f"{server.url}/v2{path}", data="{}" if method == "POST" else None, timeout=30)
        assert (answer.status_code, list(answer.json())) == (status, ["error"]), path
    assert get(server, "/").json()["name"] == "mlflow-grpc"
    assert get(server, "/models/iris/").json()["name"] == "iris"


def test_a_call_out_of_time(server):
    """A call whose caller waits no longer is a 504."""
    answer = post(server, "iris", iris(), **{"x-request-timeout-s": "1e-9"})
    assert (answer.status_code, list(answer.json())) == (504, ["error"])


def test_a_full_server():
    """A call beyond the queue is a 429 that says when to try again."""
    gated = GatedModel()
    with (
        serving(gated, PlainCodec(), queue_calls=1, threads=1, http_port=0) as running,
        Caller(running.address) as call,
    ):
        held = call.raw.future(protos.Input(value="hold").SerializeToString(), timeout=60)
        gated.wait_until_entered()
        answer = post(running, running.server.catalog.entries[0].name, iris())
        assert (answer.status_code, list(answer.json())) == (429, ["error"])
        assert int(answer.headers["retry-after"]) >= 1
        gated.let_go()
        assert held.result(60)


def raising(frame: Any, params: Any = None) -> Any:
    raise ValueError("a secret")


def test_an_error_of_the_model(tmp_path_factory):
    """An exception of the model is a 500, and its text stays in the log."""
    signature = ModelSignature(Schema([ColSpec(DataType.double, "x")]), Schema([ColSpec(DataType.double, "y")]))
    path = saved(tmp_path_factory, "http_raising", raising, signature)
    with serving_models([(ModelConfig(uri=str(path), name="raising", endpoint=True), None)], http_port=0) as running:
        answer = post(running, "raising", {"inputs": [tensor("x", "FP64", [1.0])]})
    assert (answer.status_code, list(answer.json())) == (500, ["error"])
    assert "secret" not in answer.text
