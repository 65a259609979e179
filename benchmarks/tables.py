"""Benchmark of Arrow tables by Flight: beside `mlflow models serve` with JSON, and beside the model itself.

Rule of this module: all of them predict the same batches and must get the same answers. The client is pyarrow's own.
"""

import json
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import flight
from sklearn.linear_model import LinearRegression

from benchmarks.contenders import Mlflow, Ours
from benchmarks.load import LoadError

NAME = "Arrow tables, batches of 10,000 rows of 20 doubles"
ROWS, COLUMNS = 10_000, 20
BATCHES = 1_000
"""Number of batches of the stream: 10 million rows."""
BATCHES_OF_MODEL = 300
"""Number of batches that the model predicts by itself in each round."""
CALLS_OF_MLFLOW = 5
FLOOR_OF_MLFLOW, FLOOR_OF_MODEL = 60.0, 0.7
"""Minimum rows a second, relative to MLflow's server and to the model in this process."""


def measure(directory: Path, rounds: int) -> dict[str, Any]:
    """Measures the seconds that a batch takes in each way, and the memory of the server.

    Raises:
        LoadError: The answers differ.

    """
    path = directory / "tables-model"
    numbers = np.random.default_rng(0).normal(size=(ROWS, COLUMNS))
    features = pd.DataFrame(numbers, columns=[f"f{index}" for index in range(COLUMNS)])
    estimator = LinearRegression().fit(features, numbers.sum(axis=1))
    signature = mlflow.models.infer_signature(features, estimator.predict(features))
    mlflow.sklearn.save_model(estimator, path, signature=signature, serialization_format="pickle")
    model, batch = mlflow.pyfunc.load_model(str(path)), pa.RecordBatch.from_pandas(features)
    payload = json.dumps({"dataframe_split": {"columns": list(features), "data": numbers.tolist()}})
    server, other = Ours(path, directory / "tables.log"), None
    try:
        other = Mlflow(path, directory / "tables-mlflow.log")
        with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
            expected = json.loads(other.ask(payload))["predictions"]
            if _stream(client, batch, 1) != expected or model.predict(features).tolist() != expected:
                raise LoadError("the servers do not answer the same to a table")
            seconds: dict[str, list[float]] = {"flight": [], "mlflow": [], "model": []}
            before_mb = server.memory_mb()
            for _ in range(rounds):
                seconds["mlflow"].append(_timed(lambda: other.ask(payload), CALLS_OF_MLFLOW))
                seconds["model"].append(_timed(lambda: model.predict(features), BATCHES_OF_MODEL))
                began = time.perf_counter()
                _stream(client, batch, BATCHES)
                seconds["flight"].append((time.perf_counter() - began) / BATCHES)
            memory_mb = [before_mb, server.memory_mb()]
    finally:
        server.end()
        if other is not None:
            other.end()
    return {"name": NAME, "seconds": seconds, "memory_mb": memory_mb}


def _timed(call: Any, times: int) -> float:
    """Returns the seconds that a call takes, as the mean of several."""
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times


def _stream(client: flight.FlightClient, batch: pa.RecordBatch, count: int) -> list[float]:
    """Sends a batch several times over one exchange; returns the answer to the last of them."""
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_path())
    writer.begin(batch.schema)

    def send() -> None:
        for _ in range(count):
            writer.write_batch(batch)
        writer.done_writing()

    sender = threading.Thread(target=send)
    sender.start()
    rows, answer = 0, None
    for chunk in reader:
        rows, answer = rows + chunk.data.num_rows, chunk.data
    sender.join()
    writer.close()
    if rows != count * ROWS or answer is None:
        raise LoadError(f"{rows} rows came back of {count * ROWS}")
    values: list[float] = answer.column(0).to_pylist()
    return values


def markdown(figures: dict[str, Any]) -> list[str]:
    """Returns the lines of the report."""
    seconds = figures["seconds"]
    rates = {way: ROWS / statistics.median(values) for way, values in seconds.items()}

    def times(way: str) -> float:
        return float(statistics.median(a / b for a, b in zip(seconds[way], seconds["flight"], strict=True)))

    before_mb, after_mb = figures["memory_mb"]
    return [
        "",
        f"| {figures['name']}, LinearRegression | rows a second | Flight in comparison |",
        "|---|---|---|",
        f"| Flight, {BATCHES * ROWS:,} rows in a stream | {rates['flight']:,.0f} | |",
        f"| mlflow models serve, JSON | {rates['mlflow']:,.0f} | **{times('mlflow'):.1f}** "
        f"(floor {FLOOR_OF_MLFLOW:g}) |",
        f"| the model's own predict, in process | {rates['model']:,.0f} | **{times('model'):.2f}** "
        f"(floor {FLOOR_OF_MODEL:g}) |",
        "",
        f"The server took {before_mb:.0f} MB before the streams and {after_mb:.0f} MB after them.",
    ]
