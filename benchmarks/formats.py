"""Benchmark of the formats of a single record: the time of reading a request and writing its answer, without a call.

`python -m benchmarks.formats` prints a table. It says how much of a call a typed record can save, because the rest of
the call is the same for JSON.
"""

import json
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import mlflow
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

from mlflow_grpc import protos
from mlflow_grpc.config import ModelConfig
from mlflow_grpc.contract import messages, service
from mlflow_grpc.contract.fields import PACKAGE
from mlflow_grpc.engine.loading import load
from mlflow_grpc.engine.requests import NoObserver, RecordRequest, TextRequest
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.payload.codec import RecordCodec
from mlflow_grpc.payload.protobuf.codecs import TypedCodecs
from mlflow_grpc.settings import Settings

WIDTHS = (4, 20, 100)
"""Numbers of columns."""

REPEATS, CALLS = 15, 1_000
"""Measurements of a format, of which the fastest counts, and requests of each."""

_Text: Any = protos.message_named("Input")
_Answer: Any = protos.message_named("Output")


def loaded(directory: Path, width: int) -> ServableModel:
    """Saves a model of doubles and loads it as the server does."""
    numbers = np.random.default_rng(0).normal(size=(50, width))
    features = pd.DataFrame(numbers, columns=[f"f{index:02}" for index in range(width)])
    estimator = LinearRegression().fit(features, numbers.sum(axis=1))
    signature = mlflow.models.infer_signature(features, estimator.predict(features))
    path = directory / f"model-{width}"
    mlflow.sklearn.save_model(estimator, path, signature=signature, serialization_format="pickle")
    return load(ModelConfig(uri=str(path), name="bench", endpoint=True), Settings(model_uri=str(path)))


def as_json(model: ServableModel, record: dict[str, float]) -> Callable[[], bytes]:
    """Returns what reads a record as JSON and writes the answer to it."""
    payload = json.dumps({"dataframe_split": {"columns": list(record), "data": [list(record.values())]}})
    data = _Text(value=payload).SerializeToString()
    predictions = np.array([1.5])

    def convert() -> bytes:
        request = TextRequest(_Text.FromString(data).value, None, NoObserver())
        _check(request.decode_rows(model))
        answer: bytes = _Answer(value=request.encode_rows(model, predictions)).SerializeToString()
        return answer

    return convert


def as_message(model: ServableModel, record: dict[str, float]) -> Callable[[], bytes]:
    """Returns what reads a record as a typed message and writes the answer to it."""
    contract = model.model.info.contract
    maker = messages.FileMaker()
    made = maker.add("model", contract, streams=False)
    service.add_service(maker.file, [made])
    pool = protos.pool_with(maker.file)

    def class_of(name: str) -> Any:
        return protos.message_class(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))

    if not isinstance(model.codec, RecordCodec):
        raise TypeError(type(model.codec))
    codec = TypedCodecs(model.codec, contract, made, class_of).record
    input_class = class_of(made.input.name)
    data = input_class(**record).SerializeToString()
    predictions = np.array([1.5])

    def convert() -> bytes:
        request = RecordRequest(codec, input_class.FromString(data), NoObserver(), len(data))
        _check(request.decode_rows(model))
        return request.encode_rows(model, predictions).SerializeToString()

    return convert


def _check(rows: Any) -> None:
    if rows is None:
        raise RuntimeError("the record does not take the fast path, so the figures would be those of another way")


def seconds(convert: Callable[[], bytes]) -> float:
    """Returns the processor time of one conversion: the least of the measurements."""
    return min(timeit.repeat(convert, timer=time.process_time, number=CALLS, repeat=REPEATS)) / CALLS


def main() -> None:
    """Prints the times."""
    click.echo("| columns | JSON | typed |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        for width in WIDTHS:
            model = loaded(Path(directory), width)
            record = {f"f{index:02}": 0.123 * index for index in range(width)}
            json_s, typed_s = seconds(as_json(model, record)), seconds(as_message(model, record))
            click.echo(f"| {width} | {json_s * 1e6:.1f} us | {typed_s * 1e6:.1f} us |")


if __name__ == "__main__":
    main()
