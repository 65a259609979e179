"""tritonclient over gRPC: synchronous, asynchronous and in streams, in the process of the server."""

import asyncio
import base64
import json
import queue
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from mlflow_grpc import protos
from tests.parity.conftest import oracle_of
from tests.parity.test_typed import in_any_order
from tests.support import zoo
from tests.support.shared import made_once

pytestmark = pytest.mark.triton

IRIS = ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"]
ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]])
LABELS = [b"setosa", b"virginica"]


@pytest.fixture(scope="module")
def triton() -> Any:
    """The module tritonclient.grpc. It registers its messages in protobuf's own pool."""
    return pytest.importorskip("tritonclient.grpc")


@pytest.fixture(scope="module")
def client(triton, server) -> Iterator[Any]:
    with triton.InferenceServerClient(server.address) as connected:
        yield connected


def tensor(triton: Any, name: str, array: Any) -> Any:
    from tritonclient.utils import np_to_triton_dtype

    made = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array)
    return made


def iris(triton: Any, rows: Any = ROWS) -> list[Any]:
    return [tensor(triton, name, np.ascontiguousarray(rows[:, [index]])) for index, name in enumerate(IRIS)]


def texts(*values: Any) -> Any:
    return np.array(values, dtype=object).reshape(-1, 1)


def test_messages_of_both_are_apart(triton):
    """Client and server have messages of the same names in one process, in different pools."""
    from tritonclient.grpc import service_pb2

    ours = protos.message_named("inference.ModelInferRequest")
    theirs = service_pb2.ModelInferRequest
    assert ours is not theirs
    assert ours.DESCRIPTOR.full_name == theirs.DESCRIPTOR.full_name
    assert theirs.FromString(ours(id="x").SerializeToString()).id == "x"


def test_field_numbers_are_tritons(triton):
    """Every message of the server has Triton's fields, numbers and types, and properties of metadata besides."""
    from tritonclient.grpc import model_config_pb2, service_pb2

    def fields(descriptor: Any) -> Iterator[tuple[Any, ...]]:
        for field in descriptor.fields:
            yield descriptor.full_name, field.name, field.number, field.type, field.is_repeated
        for nested in descriptor.nested_types:
            yield from fields(nested)

    theirs = {
        field
        for module in (service_pb2, model_config_pb2)
        for descriptor in module.DESCRIPTOR.message_types_by_name.values()
        for field in fields(descriptor)
    }
    ours = {
        field
        for file in protos.files()
        if file.package == "inference"
        for descriptor in protos.POOL.FindFileByName(file.name).message_types_by_name.values()
        for field in fields(descriptor)
    }
    assert {field[1] for field in ours - theirs} == {"properties", "key", "value"}
    methods = {method.name for method in protos.service("inference.GRPCInferenceService").methods}
    assert methods == set(service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name)


def test_health_and_descriptions(client):
    """Health, metadata, configuration, index and statistics are read by the client."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata().name == "mlflow-grpc"
    metadata = client.get_model_metadata("iris", as_json=True)
    assert [column["name"] for column in metadata["inputs"]] == IRIS
    assert metadata["inputs"][0]["shape"] == ["-1", "1"]
    config = client.get_model_config("iris").config
    assert [list(column.dims) for column in config.input] == [[1]] * 4
    assert "iris" in [model.name for model in client.get_model_repository_index().models]
    client.load_model("iris")
    assert client.get_inference_statistics("iris").model_stats[0].name == "iris"


def test_what_the_server_does_not_have(triton, client):
    """Shared memory, settings and unloading are UNIMPLEMENTED."""
    for call in (
        lambda: client.unload_model("iris"),
        client.get_system_shared_memory_status,
        client.get_cuda_shared_memory_status,
        client.get_trace_settings,
        client.get_log_settings,
    ):
        with pytest.raises(triton.InferenceServerException) as caught:
            call()
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_rows(triton, client, compression):
    """Rows are answered in order, with the id of the request."""
    result = client.infer("iris", iris(triton), request_id="7", compression_algorithm=compression)
    assert result.as_numpy("output-0").tolist() == LABELS
    assert result.get_response().id == "7"


def test_requested_outputs(triton, client):
    """A requested output comes back; an unknown one, and an unknown model, are refused."""
    requested = [triton.InferRequestedOutput("output-0")]
    assert client.infer("iris", iris(triton), outputs=requested).as_numpy("output-0").tolist() == LABELS
    for name, outputs, status in [
        ("iris", [triton.InferRequestedOutput("nothing")], "INVALID_ARGUMENT"),
        ("iris", [triton.InferRequestedOutput("output-0", class_count=2)], "UNIMPLEMENTED"),
        ("nobody", None, "NOT_FOUND"),
    ]:
        with pytest.raises(triton.InferenceServerException) as caught:
            client.infer(name, iris(triton), outputs=outputs)
        assert caught.value.status() == f"StatusCode.{status}"


def echoed(result: Any, name: str = "output-0") -> list[Any]:
    """Returns the model's description of its input, for each row."""
    (element,) = result.as_numpy(name).ravel()
    return [in_any_order(row) for row in json.loads(element)]


def test_every_column(triton, client, tmp_path_factory):
    """Arrays of all types give the model the input that JSON gives it."""
    path = made_once(tmp_path_factory, "zoo_rows_every_column", lambda folder: zoo.save("rows_every_column", folder))
    arrays = {
        "boolean": np.array([[True], [False]]),
        "integer": np.array([[-(2**31)], [2**31 - 1]], dtype=np.int32),
        "long": np.array([[2**63 - 1], [0]]),
        "float": np.array([[0.1], [np.inf]], dtype=np.float32),
        "double": np.array([[0.1], [-0.0]]),
        "string": texts("a", "é"),
        "binary": texts(b"\x00\xff", b""),
        "datetime": texts("2020-02-29T12:00:00.123456789", "1969-12-31T23:59:59.000000001"),
    }
    rows = [
        dict(zip(arrays, row, strict=True))
        for row in zip(*(array.ravel().tolist() for array in arrays.values()), strict=True)
    ]
    for row in rows:
        row["binary"] = base64.b64encode(row["binary"]).decode()
    _, answer = oracle_of(path)(json.dumps({"dataframe_records": rows}), "application/json")
    result = client.infer("rows_every_column", [tensor(triton, name, array) for name, array in arrays.items()])
    assert echoed(result) == [in_any_order(row) for row in json.loads(answer)["predictions"]]


def test_tensors_and_params(triton, client):
    """Named tensors of any number of dimensions, and params of all types that the client has."""
    arrays = {"x": np.arange(6.0).reshape(3, 2), "mask": np.array([1, 2, 3])}
    described = echoed(client.infer("rows_tensors", [tensor(triton, name, array) for name, array in arrays.items()]))
    assert len(described) == 3
    assert "'shape': [3, 2]" in str(described[0])
    params = {"temperature": 0.25, "top_k": 7, "flag": True, "label": "z"}
    (row,) = echoed(client.infer("rows_params", [tensor(triton, "a", np.array([[1.0]]))], parameters=params))
    got = {name.strip("'"): text for name, text in row["params"]["items"] if isinstance(text, str)}
    assert (
        got.items() >= {"temperature": "float 0.25", "top_k": "int 7", "flag": "bool True", "label": "str 'z'"}.items()
    )


def test_a_stream(triton, client):
    """A stream answers each request in order, and an error does not end it."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    client.async_stream_infer("iris", iris(triton), request_id="1")
    client.async_stream_infer("nobody", iris(triton), request_id="2")
    client.async_stream_infer("iris", iris(triton, ROWS[1:]), request_id="3", enable_empty_final_response=True)
    got = [answers.get(timeout=60) for _ in range(3)]
    client.stop_stream()
    (first, none), (nothing, error), (last, no_error) = got
    assert (none, nothing, no_error) == (None, None, None)
    assert first.as_numpy("output-0").tolist() == LABELS
    assert error.message().startswith("NOT_FOUND: ")
    assert last.as_numpy("output-0").tolist() == LABELS[1:]
    assert last.get_response().parameters["triton_final_response"].bool_param


def test_calls_in_flight(triton, client):
    """Calls that are made at the same time get their own answers."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    for index in range(64):
        rows = ROWS[[index % 2]]
        client.async_infer(
            "iris", iris(triton, rows), lambda result, error: answers.put((result, error)), request_id=str(index)
        )
    got = [answers.get(timeout=60) for _ in range(64)]
    assert not [error for _, error in got if error]
    labels = {int(result.get_response().id): result.as_numpy("output-0").tolist() for result, _ in got}
    assert labels == {index: [LABELS[index % 2]] for index in range(64)}


def test_the_asynchronous_client(triton, server):
    """tritonclient.grpc.aio answers single calls, and streams with errors in them."""
    from tritonclient.grpc import aio

    async def requests() -> Any:
        for name, rows in (("iris", ROWS), ("nobody", ROWS), ("iris", ROWS[:1])):
            yield {"model_name": name, "inputs": iris(triton, rows)}

    async def check() -> tuple[Any, Sequence[Any]]:
        async with aio.InferenceServerClient(server.address) as client:
            assert await client.is_server_ready()
            result = await client.infer("iris", iris(triton), client_timeout=30)
            return result, [answer async for answer in client.stream_infer(requests())]

    result, streamed = asyncio.run(asyncio.wait_for(check(), 60))
    assert result.as_numpy("output-0").tolist() == LABELS
    (first, none), (nothing, error), (last, no_error) = streamed
    assert (none, nothing, no_error) == (None, None, None)
    assert "NOT_FOUND" in str(error)
    assert [first.as_numpy("output-0").tolist(), last.as_numpy("output-0").tolist()] == [LABELS, LABELS[:1]]


def test_load_model(triton, client):
    """A model is reloaded and answers as before; a configuration of the caller's is refused."""
    from tritonclient.utils import InferenceServerException

    client.load_model("iris")
    assert client.infer("iris", iris(triton)).as_numpy("output-0").ravel().tolist() == LABELS
    with pytest.raises(InferenceServerException, match="Leave the parameters out"):
        client.load_model("iris", config="{}")
