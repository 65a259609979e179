"""KServe's clients for Python, over gRPC and HTTP."""

import asyncio
import contextlib
import io
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from tests.triton.test_open_inference_page import KSERVE, blocks
from tests.triton.test_tritonclient import IRIS, LABELS, ROWS

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def kserve() -> Any:
    """The module kserve, whose imports warn about changes of other packages."""
    return pytest.importorskip("kserve")


def iris(kserve: Any, rows: Any = ROWS, *, binary: bool = True, **more: Any) -> Any:
    inputs = []
    for index, name in enumerate(IRIS):
        column = np.ascontiguousarray(rows[:, [index]])
        tensor = kserve.InferInput(name, list(column.shape), "FP64")
        tensor.set_data_from_numpy(column, binary_data=binary)
        inputs.append(tensor)
    return kserve.InferRequest(model_name="iris", infer_inputs=inputs, request_id="7", **more)


def run(check: Callable[[], Awaitable[Any]]) -> Any:
    async def limited() -> Any:
        return await asyncio.wait_for(check(), 60)

    return asyncio.run(limited())


def labels(response: Any) -> list[Any]:
    """Returns the labels of a response; those that came in JSON are texts."""
    (output,) = response.outputs
    values = output.as_numpy().ravel().tolist()
    return [value if isinstance(value, bytes) else value.encode() for value in values]


@pytest.mark.parametrize("binary", [True, False])
def test_grpc(kserve, server, binary):
    """InferenceGRPCClient reads health and answers, with raw contents and with typed ones."""

    async def check() -> Any:
        async with kserve.InferenceGRPCClient(server.address) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("iris")
            assert not await client.is_model_ready("nobody")
            return await client.infer(iris(kserve, binary=binary))

    response = run(check)
    assert (response.id, response.model_name) == ("7", "iris")
    assert labels(response) == LABELS


def test_grpc_errors(kserve, server):
    """An error is the client's RpcError with the status and the message."""
    import grpc

    async def check() -> None:
        async with kserve.InferenceGRPCClient(server.address) as client:
            await client.infer(kserve.InferRequest("iris", infer_inputs=iris(kserve).inputs[:1]))

    with pytest.raises(grpc.RpcError, match="lacks inputs of the model") as caught:
        run(check)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("binary_output", [True, False])
def test_http(kserve, server, binary, binary_output):
    """InferenceRESTClient reads health and answers, in both forms of tensors."""

    async def check() -> Any:
        client = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2", timeout=60))
        async with client:
            assert await client.is_server_live(server.url)
            assert await client.is_server_ready(server.url)
            assert await client.is_model_ready(server.url, "iris")
            request = iris(kserve, binary=binary, parameters={"binary_data_output": binary_output})
            return await client.infer(server.url, request, model_name="iris")

    response = run(check)
    assert (response.id, response.model_name) == ("7", "iris")
    assert labels(response) == LABELS


def test_http_errors(kserve, server):
    """An error is the client's exception with the status and the message."""
    import httpx

    async def check() -> None:
        async with kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2", retries=0)) as client:
            await client.infer(server.url, iris(kserve), model_name="nobody")

    with pytest.raises(httpx.HTTPStatusError, match="no such model") as caught:
        run(check)
    assert caught.value.response.status_code == 404


def test_the_page(kserve, server):
    """The example in docs/open-inference.md prints the output on the page."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(KSERVE.replace("localhost:50051", server.address), {})  # noqa: S102
    assert output.getvalue() == blocks("text")[1]
