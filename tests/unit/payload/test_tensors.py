"""Tensors on the fast path: no Python object for a number, and the same batches as JSON."""

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.engine.loading import load
from mlflow_grpc.engine.requests import NoObserver, TensorsRequest, TextRequest
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import InvalidPayload
from mlflow_grpc.payload.tensors.codec import TensorCodec
from mlflow_grpc.settings import Settings
from tests.support import tensors

IRIS = ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"]


@pytest.fixture(scope="module")
def model(iris_path) -> ServableModel:
    return load(ModelConfig(uri=str(iris_path), name="iris", endpoint=True), Settings(model_uri="(unit)"))


def request_of(model: ServableModel, columns: list[Any], datatype: str = "FP64", **more: Any) -> TensorsRequest:
    inputs = [(name, datatype, column) for name, column in zip(IRIS, columns, strict=True)]
    contract = model.model.info.contract
    codec = TensorCodec(model.codec, contract, type(tensors.message("ModelInferResponse")), name="iris", version="")
    request = tensors.request("iris", *inputs, **more)
    return TensorsRequest(codec, request, NoObserver(), request.ByteSize())


def test_a_table_takes_no_objects(model):
    """Reading 40,000 numbers makes arrays, and few Python objects."""
    columns = list(np.random.default_rng(0).uniform(0, 7, (4, 10_000)))
    request = request_of(model, columns)
    tracemalloc.start()
    try:
        rows = request.decode_rows(model)
        objects = sum(1 for trace in tracemalloc.take_snapshot().traces if trace.size < 100)
    finally:
        tracemalloc.stop()
    assert rows is not None
    assert objects < 1000
    np.testing.assert_array_equal(rows.cells, np.array(columns).T)


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "INT32", "UINT8"])
def test_the_rows_are_those_of_json(model, datatype):
    """A datatype that MLflow casts gives the rows that JSON gives, to the bit."""
    columns = [[1, 2], [3, 4], [5, 6], [7, 0]]
    rows = request_of(model, columns, datatype).decode_rows(model)
    payload = {
        "dataframe_split": {"columns": IRIS, "data": [list(map(float, row)) for row in zip(*columns, strict=True)]}
    }
    of_json = TextRequest(json.dumps(payload), None, NoObserver()).decode_rows(model)
    assert rows is not None
    assert of_json is not None
    assert (rows.cells.dtype, rows.count) == (of_json.cells.dtype, of_json.count)
    assert rows.cells.tobytes() == of_json.cells.tobytes()


def test_what_is_not_plain_goes_through_mlflow(model):
    """Unknown inputs and params, and booleans are left to MLflow's parser; absent inputs are refused."""
    plain = [[1.0]] * 4
    assert request_of(model, plain).decode_rows(model) is not None
    assert request_of(model, plain, "BOOL").decode_rows(model) is None
    assert request_of(model, plain, temperature=1).decode_rows(model) is None
    fewer = request_of(model, plain)
    del fewer.message.inputs[0]  # type: ignore[attr-defined]
    del fewer.message.raw_input_contents[0]  # type: ignore[attr-defined]
    with pytest.raises(InvalidPayload, match=IRIS[0]):
        fewer.decode_rows(model)
    more = request_of(model, plain)
    more.message.inputs.add(name="other", datatype="FP64", shape=[1])  # type: ignore[attr-defined]
    more.message.raw_input_contents.append(bytes(8))  # type: ignore[attr-defined]
    assert more.decode_rows(model) is None


def changed(model: ServableModel, *changes: Any) -> TensorsRequest:
    request = request_of(model, [[5.1], [3.5], [1.4], [0.2]])
    for change in changes:
        change(request.message)
    return request


def _longer_and_shorter(message: Any) -> None:
    message.raw_input_contents[0], message.raw_input_contents[1] = bytes(16), b""


def _swap_names(message: Any) -> None:
    message.inputs[0].name, message.inputs[1].name = IRIS[1], IRIS[0]


def _flat(message: Any) -> None:
    for tensor in message.inputs:
        tensor.shape[:] = [1]


@pytest.mark.parametrize("warm", [False, True])
def test_requests_that_resemble_the_last_one(model, warm):
    """What differs from the request before is read as it is, whether or not a plain request of one row came before."""
    codec = request_of(model, [[1.0]] * 4).codec
    if warm:
        assert codec.fast_path_rows(changed(model).message, model.fast_path.decoder) is not None

    def read(*changes: Any) -> Any:
        rows = codec.fast_path_rows(changed(model, *changes).message, model.fast_path.decoder)
        return None if rows is None else rows.cells.tolist()

    assert read() == [[5.1, 3.5, 1.4, 0.2]]
    assert read(_flat) == [[5.1, 3.5, 1.4, 0.2]]
    assert read(_swap_names) == [[3.5, 5.1, 1.4, 0.2]]
    for change, text in [
        (_longer_and_shorter, "16 bytes"),
        (lambda message: message.inputs[2].contents.SetInParent(), "one of the two"),
        (lambda message: setattr(message.inputs[3], "datatype", "INT32"), "need 4"),
        (lambda message: message.inputs[3].shape.append(2), "need 16"),
        (lambda message: message.raw_input_contents.pop(), "3 entries"),
    ]:
        with pytest.raises(InvalidPayload, match=text):
            read(change)
    assert read() == [[5.1, 3.5, 1.4, 0.2]]
