"""tritonclient over HTTP: synchronous and asynchronous, with binary tensors and with tensors in JSON."""

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.triton.test_tritonclient import IRIS, LABELS, ROWS, echoed, texts
from tests.triton.test_tritonclient import tensor as grpc_tensor

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def triton() -> Any:
    """The module tritonclient.http."""
    return pytest.importorskip("tritonclient.http")


@pytest.fixture(scope="module")
def client(triton, server) -> Iterator[Any]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as connected:
        yield connected


def tensor(triton: Any, name: str, array: Any, *, binary: bool = True) -> Any:
    from tritonclient.utils import np_to_triton_dtype

    made = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def iris(triton: Any, *, binary: bool = True) -> list[Any]:
    return [
        tensor(triton, name, np.ascontiguousarray(ROWS[:, [index]]), binary=binary) for index, name in enumerate(IRIS)
    ]


def decoded(result: Any) -> list[Any]:
    """Returns the labels; those in JSON are texts."""
    return [label if isinstance(label, bytes) else label.encode() for label in result.as_numpy("output-0").tolist()]


def test_health_and_descriptions(triton, client):
    """Health, metadata, configuration, index and statistics are read by the client."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata()["name"] == "mlflow-grpc"
    assert [column["name"] for column in client.get_model_metadata("iris")["inputs"]] == IRIS
    assert [column["dims"] for column in client.get_model_config("iris")["input"]] == [[1]] * 4
    assert "iris" in [model["name"] for model in client.get_model_repository_index()]
    assert client.get_inference_statistics("iris")["model_stats"][0]["name"] == "iris"
    assert len(client.get_inference_statistics()["model_stats"]) > 1
    with pytest.raises(triton.InferenceServerException, match="no such model"):
        client.get_model_metadata("nobody")
    with pytest.raises(triton.InferenceServerException, match="There is no"):
        client.get_system_shared_memory_status()


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [None, True, False])
def test_rows(triton, client, binary_input, binary_output):
    """Rows are answered in order, in both forms, with the id of the request."""
    outputs = None if binary_output is None else [triton.InferRequestedOutput("output-0", binary_data=binary_output)]
    result = client.infer("iris", iris(triton, binary=binary_input), outputs=outputs, request_id="7")
    assert decoded(result) == LABELS
    assert result.get_response()["id"] == "7"


def test_compression(triton, client):
    """A request may be compressed with gzip; deflate is refused."""
    result = client.infer("iris", iris(triton), request_compression_algorithm="gzip")
    assert decoded(result) == LABELS
    result = client.infer("iris", iris(triton), response_compression_algorithm="gzip")
    assert decoded(result) == LABELS
    with pytest.raises(triton.InferenceServerException, match="gzip"):
        client.infer("iris", iris(triton), request_compression_algorithm="deflate")


def test_errors(triton, client):
    """Errors have a status, and a message in the client's exception."""
    for name, outputs, status in [
        ("iris", [triton.InferRequestedOutput("nothing")], "400"),
        ("iris", [triton.InferRequestedOutput("output-0", class_count=2)], "501"),
        ("nobody", None, "404"),
    ]:
        with pytest.raises(triton.InferenceServerException) as caught:
            client.infer(name, iris(triton), outputs=outputs)
        assert caught.value.status() == status
        assert caught.value.message()


@pytest.mark.parametrize("binary", [True, False])
def test_every_column(triton, client, server, binary):
    """Arrays of all types, in both forms, give the model the input that they give it over gRPC."""
    arrays = {
        "boolean": np.array([[True], [False]]),
        "integer": np.array([[-(2**31)], [2**31 - 1]], dtype=np.int32),
        "long": np.array([[2**63 - 1], [0]]),
        "float": np.array([[0.1], [3e38]], dtype=np.float32),
        "double": np.array([[0.1], [-0.0]]),
        "string": texts("a", "é"),
        "binary": texts(b"b", b""),
        "datetime": texts("2020-02-29T12:00:00.123456789", "1969-12-31T23:59:59.000000001"),
    }
    inputs = [tensor(triton, name, array, binary=binary) for name, array in arrays.items()]
    described = echoed(client.infer("rows_every_column", inputs))
    over_grpc = pytest.importorskip("tritonclient.grpc")
    with over_grpc.InferenceServerClient(server.address) as connected:
        inputs = [grpc_tensor(over_grpc, name, array) for name, array in arrays.items()]
        assert described == echoed(connected.infer("rows_every_column", inputs))


def test_tensors_and_params(triton, client):
    """Named tensors, and params of all types that the client has."""
    arrays = {"x": np.arange(6.0).reshape(3, 2), "mask": np.array([1, 2, 3])}
    described = echoed(client.infer("rows_tensors", [tensor(triton, name, array) for name, array in arrays.items()]))
    assert "'shape': [3, 2]" in str(described[0])
    params = {"temperature": 0.25, "top_k": 7, "flag": True, "label": "z"}
    (row,) = echoed(client.infer("rows_params", [tensor(triton, "a", np.array([[1.0]]))], parameters=params))
    read = {name.strip("'"): text for name, text in row["params"]["items"] if isinstance(text, str)}
    assert (
        read.items() >= {"temperature": "float 0.25", "top_k": "int 7", "flag": "bool True", "label": "str 'z'"}.items()
    )


def test_calls_in_flight(triton, server):
    """Calls that are made at the same time get their own answers."""
    address = server.url.removeprefix("http://")
    with triton.InferenceServerClient(address, concurrency=8) as client:
        handles = [client.async_infer("iris", iris(triton), request_id=str(index)) for index in range(32)]
        answers = [handle.get_result(timeout=60) for handle in handles]
    assert [answer.get_response()["id"] for answer in answers] == [str(index) for index in range(32)]
    assert all(decoded(answer) == LABELS for answer in answers)


def test_the_asynchronous_client(triton, server):
    """tritonclient.http.aio answers calls."""
    aio = pytest.importorskip("tritonclient.http.aio")

    async def check() -> Any:
        async with aio.InferenceServerClient(server.url.removeprefix("http://")) as client:
            assert await client.is_server_ready()
            return await client.infer("iris", iris(triton))

    assert decoded(asyncio.run(asyncio.wait_for(check(), 60))) == LABELS
