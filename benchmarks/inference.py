"""Benchmark of tensors of the Open Inference Protocol, beside JSON and beside `mlflow models serve`.

Rule of this module: all of them predict the same rows and must get the same answers.
"""

import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import mlflow
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

from benchmarks import load
from benchmarks.contenders import ANY_SIZE, GRPC_HEADER_BYTES, Mlflow, Ours, framed
from mlflow_grpc.calls.inference_models import REQUEST, RESPONSE

NAME = "Inference tensors of 20 doubles, one row and 10,000 rows"
METHOD = "/inference.GRPCInferenceService/ModelInfer"
ROWS, COLUMNS = 10_000, 20
IN_FLIGHT, SECONDS = 32, 5
CALLS, CALLS_OF_MLFLOW = 200, 5
FLOOR_OF_JSON, FLOOR_OF_MLFLOW = 1.0, 40.0
"""Minimum calls a second of a single row relative to JSON, and of many rows relative to MLflow's server."""


class Tensors(Ours):
    """The server of this project, called through ModelInfer."""

    name = "mlflow-grpc, tensors"

    @property
    def url(self) -> str:
        """Returns the URL with the path of the method."""
        return f"http://127.0.0.1:{self.port}{METHOD}"

    def body(self, text: str) -> bytes:
        """Converts a payload to one gRPC message with a raw tensor for each column."""
        return framed(request(text))

    def tensors(self, channel: grpc.Channel, text: str) -> bytes:
        """Returns the message with the answer to a payload."""
        infer: Any = channel.unary_unary(METHOD)
        data: bytes = infer(self.body(text)[GRPC_HEADER_BYTES:], timeout=60)
        return data

    def answer_bytes(self, answer: str) -> int:
        """Returns the size of the answer to one row, which is known from `measure`."""
        return self.row_answer_bytes

    row_answer_bytes = 0


def request(text: str) -> bytes:
    """Converts a payload to a ModelInferRequest with a raw tensor for each column, for the model called bench."""
    table = json.loads(text)["dataframe_split"]
    columns = np.array(table["data"], dtype=float).reshape(-1, len(table["columns"])).T
    message: Any = REQUEST(
        model_name="bench",
        inputs=[{"name": name, "datatype": "FP64", "shape": [columns.shape[1], 1]} for name in table["columns"]],
        raw_input_contents=[column.tobytes() for column in columns],
    )
    data: bytes = message.SerializeToString()
    return data


def measure(directory: Path, rounds: int) -> dict[str, Any]:
    """Measures the calls of one row a second, and the seconds that a call of many rows takes.

    Raises:
        LoadError: The answers differ, or calls failed.

    """
    load.check_installed()
    path = directory / "tensors-model"
    numbers = np.random.default_rng(0).normal(size=(ROWS, COLUMNS))
    features = pd.DataFrame(numbers, columns=[f"f{index:02}" for index in range(COLUMNS)])
    estimator = LinearRegression().fit(features, numbers.sum(axis=1))
    signature = mlflow.models.infer_signature(features, estimator.predict(features))
    mlflow.sklearn.save_model(estimator, path, signature=signature, serialization_format="pickle")
    one, many = (
        json.dumps({"dataframe_split": {"columns": list(features), "data": rows.tolist()}})
        for rows in (numbers[:1], numbers)
    )
    server, other = Tensors(path, directory / "tensors.log"), None
    texts = _SameServer(server)
    seconds: dict[str, list[float]] = {"tensors": [], "mlflow": []}
    row: dict[str, list[dict[str, float]]] = {server.name: [], Ours.name: []}
    try:
        other = Mlflow(path, directory / "tensors-mlflow.log")
        with grpc.insecure_channel(f"127.0.0.1:{server.port}", ANY_SIZE) as channel:
            for text in (one, many):
                response: Any = RESPONSE.FromString(server.tensors(channel, text))
                if (
                    np.frombuffer(response.raw_output_contents[0]).tolist()
                    != json.loads(other.ask(text))["predictions"]
                ):
                    raise load.LoadError("the servers do not answer the same to tensors")
            server.row_answer_bytes = len(server.tensors(channel, one)) + GRPC_HEADER_BYTES
            answer = server.ask(one)
            body: bytes = server.body(many)[GRPC_HEADER_BYTES:]
            infer: Any = channel.unary_unary(METHOD)
            for _ in range(rounds):
                for contender in (server, texts):
                    measured = load.run(contender, one, answer, in_flight=IN_FLIGHT, seconds=SECONDS, scratch=directory)
                    row[contender.name].append(vars(measured))
                _timed(partial(infer, body, timeout=60), CALLS)  # gRPC widens its window during the first large calls.
                seconds["tensors"].append(_timed(partial(infer, body, timeout=60), CALLS))
                seconds["mlflow"].append(_timed(partial(other.ask, many), CALLS_OF_MLFLOW))
    finally:
        server.end()
        if other is not None:
            other.end()
    return {"name": NAME, "row": row, "seconds": seconds}


class _SameServer(Ours):
    """A server that runs already, called with JSON."""

    def __init__(self, server: Tensors) -> None:
        self.port, self._process = server.port, server._process  # noqa: SLF001 - it is the same


def _timed(call: Any, times: int) -> float:
    """Returns the seconds that a call takes, as the mean of several."""
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times


def markdown(figures: dict[str, Any]) -> list[str]:
    """Returns the lines of the report."""
    row = {name: [measured["per_second"] for measured in rounds] for name, rounds in figures["row"].items()}
    cpu = {name: statistics.median(m["cpu_us"] for m in rounds) for name, rounds in figures["row"].items()}
    tensors, texts = row[Tensors.name], row[Ours.name]
    of_json = statistics.median(a / b for a, b in zip(tensors, texts, strict=True))
    seconds = figures["seconds"]
    of_mlflow = statistics.median(a / b for a, b in zip(seconds["mlflow"], seconds["tensors"], strict=True))
    return [
        "",
        f"| {figures['name']}, LinearRegression | tensors | JSON over gRPC | mlflow models serve | tensors compared |",
        "|---|---|---|---|---|",
        f"| one row, {IN_FLIGHT} in flight, calls a second | {statistics.median(tensors):,.0f} "
        f"| {statistics.median(texts):,.0f} | | **{of_json:.2f}** (floor {FLOOR_OF_JSON:g}) |",
        f"| the same, CPU per call | {cpu[Tensors.name]:.0f} us | {cpu[Ours.name]:.0f} us | | |",
        f"| {ROWS:,} rows, ms a call | {statistics.median(seconds['tensors']) * 1000:.2f} | "
        f"| {statistics.median(seconds['mlflow']) * 1000:.0f} | **{of_mlflow:.0f}** (floor {FLOOR_OF_MLFLOW:g}) |",
    ]
