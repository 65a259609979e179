"""Requests of MLServer's codecs get the answers that MLServer's runtime for MLflow gives, over gRPC and HTTP."""

import asyncio
import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pandas as pd
import pytest
import requests
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.services import open_inference
from tests.support.servers import Caller, InProcess, serving_models
from tests.support.tables import FunctionOfFrame, saved

pytestmark = [pytest.mark.triton, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def same(data: Any, params: Any = None) -> Any:
    return data


def doubled(data: Any, params: Any = None) -> Any:
    return data * 2


def lengths(frame: pd.DataFrame, params: Any = None) -> Any:
    return frame.iloc[:, 0].map(len).to_numpy()


def microseconds(frame: pd.DataFrame, params: Any = None) -> Any:
    return frame["at"].astype("datetime64[us]").astype("int64").to_numpy()


def total(arrays: dict[str, Any], params: Any = None) -> Any:
    return arrays["a"] + arrays["b"].sum()


NUMBERS: list[ColSpec | TensorSpec] = [
    ColSpec(DataType.double, "double"),
    ColSpec(DataType.float, "float"),
    ColSpec(DataType.long, "long"),
    ColSpec(DataType.integer, "integer"),
    ColSpec(DataType.boolean, "boolean"),
    ColSpec(DataType.string, "string"),
]
ONE_LONG = Schema([ColSpec(DataType.long)])

MODELS: dict[str, tuple[Callable[..., Any], ModelSignature]] = {
    "columns": (same, ModelSignature(Schema(NUMBERS), Schema(NUMBERS))),
    "array": (
        doubled,
        ModelSignature(Schema([TensorSpec(np.dtype(float), (-1, 3))]), Schema([TensorSpec(np.dtype(float), (-1, 3))])),
    ),
    "arrays": (
        total,
        ModelSignature(
            Schema([TensorSpec(np.dtype(float), (-1, 2), "a"), TensorSpec(np.dtype(np.int64), (-1, 1), "b")]),
            Schema([TensorSpec(np.dtype(float), (-1, 2))]),
        ),
    ),
    "bytes": (lengths, ModelSignature(Schema([ColSpec(DataType.binary, "data")]), ONE_LONG)),
    "times": (microseconds, ModelSignature(Schema([ColSpec(DataType.datetime, "at")]), ONE_LONG)),
    "texts": (lengths, ModelSignature(Schema([ColSpec(DataType.string)]), ONE_LONG)),
}

FRAME = pd.DataFrame(
    {
        "double": [0.1, -2.5, 1e300],
        "float": np.array([0.1, 2.5, -3.0], dtype=np.float32),
        "long": [2**63 - 1, -1, 0],
        "integer": np.array([1, -2, 3], dtype=np.int32),
        "boolean": [True, False, True],
        "string": pd.Series(["a", "", "é"], dtype=object),
    }
)


@pytest.fixture(scope="module")
def mlserver() -> Any:
    """The module mlserver, with its codecs and those of its runtime for MLflow."""
    module = pytest.importorskip("mlserver")
    pytest.importorskip("mlserver_mlflow")
    return module


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    # Before the first model is saved, because a model brings the functions that were there.
    FunctionOfFrame.functions |= {f"mlserver_{name}": function for name, (function, _) in MODELS.items()}
    return {
        name: saved(tmp_path_factory, f"mlserver_{name}", function, signature)
        for name, (function, signature) in MODELS.items()
    }


@pytest.fixture(scope="module")
def server(paths: dict[str, Path]) -> Iterator[InProcess]:
    models = [(ModelConfig(uri=str(path), name=name, endpoint=True), None) for name, path in paths.items()]
    with serving_models(models, http_port=0) as running:
        yield running


@pytest.fixture(scope="module")
def channel(server: InProcess) -> Iterator[grpc.Channel]:
    with Caller(server.address) as call:
        yield call.channel


@pytest.fixture(params=["http", "grpc"])
def ask(request: pytest.FixtureRequest, mlserver: Any, server: InProcess, channel: grpc.Channel) -> Any:
    """Sends a request of MLServer's types to this server, and returns the response in MLServer's types."""
    from mlserver.grpc import converters
    from mlserver.types import InferenceResponse

    def over_http(model: str, sent: Any) -> Any:
        body = sent.model_dump_json(exclude_none=True)
        answer = requests.post(f"{server.url}/v2/models/{model}/infer", body.encode(), timeout=30)
        assert answer.status_code == 200, answer.text
        return InferenceResponse.model_validate_json(answer.content)

    def over_grpc(model: str, sent: Any) -> Any:
        message = converters.ModelInferRequestConverter.from_types(sent, model_name=model, model_version=None)
        infer: Any = channel.unary_unary(f"/{open_inference.NAME}/ModelInfer")
        data = infer(message.SerializeToString(), timeout=30)
        return converters.ModelInferResponseConverter.to_types(converters.pb.ModelInferResponse.FromString(data))

    return over_http if request.param == "http" else over_grpc


@pytest.fixture
def expect(request: pytest.FixtureRequest, mlserver: Any, paths: dict[str, Path]) -> Any:
    """Returns MLServer's own response to a request, as its protocol brings it to the client."""
    from mlserver.grpc import converters
    from mlserver.settings import ModelParameters
    from mlserver.types import InferenceResponse
    from mlserver_mlflow import MLflowRuntime

    def predict(model: str, sent: Any) -> Any:
        async def run() -> Any:
            settings = mlserver.ModelSettings(
                name=model, implementation=MLflowRuntime, parameters=ModelParameters(uri=str(paths[model]))
            )
            runtime = MLflowRuntime(settings)
            assert await runtime.load()
            return await runtime.predict(sent)

        response = asyncio.run(asyncio.wait_for(run(), 60))
        if request.node.callspec.params["ask"] == "http":
            return InferenceResponse.model_validate_json(response.model_dump_json(exclude_none=True))
        converter = converters.ModelInferResponseConverter
        return converter.to_types(converter.from_types(response))

    return predict


def on_wire(request: pytest.FixtureRequest) -> dict[str, bool]:
    """Returns the option of codecs for texts instead of bytes, which JSON needs."""
    return {"use_bytes": request.node.callspec.params["ask"] == "grpc"}


def test_pandas_codec(ask, expect, request):
    """A DataFrame comes back with the values and types that MLServer gives it."""
    from mlserver.codecs import PandasCodec

    sent = PandasCodec.encode_request(FRAME, **on_wire(request))
    answer, theirs = ask("columns", sent), expect("columns", sent)
    assert [(o.name, o.datatype, o.shape) for o in answer.outputs] == [
        (o.name, o.datatype, o.shape) for o in theirs.outputs
    ]
    pd.testing.assert_frame_equal(PandasCodec.decode_response(answer), PandasCodec.decode_response(theirs))


def test_numpy_codec(ask, expect):
    """An array is answered with the array that MLServer answers, in both of its forms of a request."""
    from mlserver.codecs import NumpyCodec, NumpyRequestCodec
    from mlserver.types import InferenceRequest, Parameters

    array = np.array([[0.1, 2.5, -1.0], [3.0, np.pi, 1e300]])
    one = NumpyCodec.encode_input("anything", array)
    for sent in (
        NumpyRequestCodec.encode_request(array),
        InferenceRequest(parameters=Parameters(content_type="np"), inputs=[one]),
    ):
        answer, theirs = ask("array", sent), expect("array", sent)
        decoded = NumpyRequestCodec.decode_response(answer)
        np.testing.assert_array_equal(decoded, NumpyRequestCodec.decode_response(theirs), strict=True)
        np.testing.assert_array_equal(decoded, array * 2, strict=True)


def test_arrays_by_name(ask, expect):
    """The content type `dict` gives a model arrays by their names."""
    from mlserver.codecs import NumpyCodec, NumpyRequestCodec
    from mlserver.types import InferenceRequest, Parameters

    arrays = {"a": np.array([[0.5, 1.0]]), "b": np.array([[2], [3]])}
    sent = InferenceRequest(
        parameters=Parameters(content_type="dict"),
        inputs=[NumpyCodec.encode_input(name, array) for name, array in arrays.items()],
    )
    answer, theirs = ask("arrays", sent), expect("arrays", sent)
    decoded = NumpyRequestCodec.decode_response(answer)
    np.testing.assert_array_equal(decoded, NumpyRequestCodec.decode_response(theirs), strict=True)
    assert decoded.tolist() == [[5.5, 6.0]]


def column(codec: Any, name: str, values: list[Any], **options: bool) -> Any:
    """Returns a request with one column of a codec."""
    from mlserver.types import InferenceRequest, Parameters

    tensor = codec.encode_input(name, values, **options)
    return InferenceRequest(parameters=Parameters(content_type="pd"), inputs=[tensor])


def numbers(response: Any) -> Any:
    from mlserver.codecs import NumpyCodec

    (output,) = response.outputs
    return NumpyCodec.decode_output(output).ravel().tolist()


def test_base64_codec(ask, expect, request):
    """Bytes in base64 reach the model as bytes."""
    from mlserver.codecs import Base64Codec

    sent = column(Base64Codec, "data", [b"\x00\xff\x80", b"", b"abcd"], **on_wire(request))
    assert numbers(ask("bytes", sent)) == [3, 0, 4] == numbers(expect("bytes", sent))


def test_datetime_codec(ask, expect, request):
    """Times in ISO 8601 reach the model as times."""
    from mlserver.codecs import DatetimeCodec

    times = [datetime.datetime(2020, 2, 29, 12, 0, 0, 123456), datetime.datetime(1969, 12, 31, 23, 59, 59, 999999)]
    sent = column(DatetimeCodec, "at", times, **on_wire(request))
    since = [(moment - datetime.datetime(1970, 1, 1)) // datetime.timedelta(microseconds=1) for moment in times]
    assert numbers(ask("times", sent)) == since == numbers(expect("times", sent))


def test_string_codec(ask, request):
    """Texts reach a model without names, from both of MLServer's forms of a request."""
    from mlserver.codecs import StringCodec, StringRequestCodec

    options = on_wire(request)
    for sent in (
        StringRequestCodec.encode_request(["a", "", "éé"], **options),
        column(StringCodec, "input-0", ["a", "", "éé"], **options),
    ):
        assert numbers(ask("texts", sent)) == [1, 0, 2]


def test_responses_of_texts_and_bytes(ask, request):
    """MLServer's codecs decode texts, and the types of outputs are those of its codecs."""
    from mlserver.codecs import PandasCodec, StringCodec

    sent = PandasCodec.encode_request(FRAME, **on_wire(request))
    by_name = {output.name: output for output in ask("columns", sent).outputs}
    assert StringCodec.decode_output(by_name["string"]) == ["a", "", "é"]
