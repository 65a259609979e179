"""Benchmark of a typical DataFrame with the Python client, as JSON and typed.

Rule of this module: both calls go to the same server in turn and must get the same answers. The time is the CPU time of
the client and the server together, because the client takes the larger part of such a call.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow_grpc_client import Client

from benchmarks.contenders import Ours
from benchmarks.load import LoadError

NAME = "100,000 rows of texts, dates and optional columns"
ROWS = 100_000
FLOOR = 1.0
"""Minimum speed of typed calls, relative to JSON."""

_TYPES = {
    "customer": DataType.string,
    "city": DataType.string,
    "born": DataType.datetime,
    "seen": DataType.datetime,
    "income": DataType.double,
    "visits": DataType.long,
}
_OPTIONAL_TYPES = {"score": DataType.double, "note": DataType.string, "last": DataType.datetime}


class _Score(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
    """A model that takes almost no time itself."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return model_input["income"].to_numpy() / 1000 + model_input["visits"].to_numpy()


def frame(rows: int) -> pd.DataFrame:
    """Makes rows of nine columns: two texts, two dates, two numbers, and one of each with a tenth missing."""
    dice = np.random.default_rng(0)
    data = pd.DataFrame(
        {
            "customer": [f"c-{number:06d}" for number in dice.integers(0, 10**6, rows)],
            "city": np.array(["Amsterdam", "Berlin", "Köln", "London", "Paris"], dtype=object)[
                dice.integers(0, 5, rows)
            ],
            "born": pd.Timestamp("1950-01-01") + pd.to_timedelta(dice.integers(0, 20_000, rows), unit="D"),
            "seen": pd.Timestamp("2024-01-01") + pd.to_timedelta(dice.integers(0, 10**8, rows), unit="ms"),
            "income": dice.normal(50_000, 10_000, rows),
            "visits": dice.integers(0, 1000, rows),
            "score": dice.normal(size=rows),
            "note": np.array(["short", "longer", "the longest"], dtype=object)[dice.integers(0, 3, rows)],
            "last": pd.Timestamp("2023-01-01") + pd.to_timedelta(dice.integers(0, 10**6, rows), unit="s"),
        }
    )
    for name in _OPTIONAL_TYPES:
        data.loc[dice.random(rows) < 0.1, name] = None  # noqa: PLR2004
    return data


def measure(directory: Path, rounds: int) -> dict[str, Any]:
    """Measures the CPU time of each call in seconds, as JSON and typed.

    Raises:
        LoadError: The answers differ.

    """
    path = directory / "frames-model"
    inputs: list[Any] = [ColSpec(data_type, name) for name, data_type in _TYPES.items()]
    inputs += [ColSpec(data_type, name, required=False) for name, data_type in _OPTIONAL_TYPES.items()]
    signature = ModelSignature(Schema(inputs), Schema([ColSpec(DataType.double)]))
    mlflow.pyfunc.save_model(path, python_model=_Score(), signature=signature, pip_requirements=[])
    server = Ours(path, directory / "frames.log")
    try:
        with Client(f"127.0.0.1:{server.port}") as client:
            table, model = frame(ROWS), client.model()
            if client.predict(table) != model.predict(table):
                raise LoadError("typed and JSON calls with a frame are not answered the same")
            ways: dict[str, Callable[[], Any]] = {
                "json": lambda: client.predict(table),
                "typed": lambda: model.predict(table),
            }
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(rounds):
                for way, call in ways.items():
                    began = time.process_time() + server.processor_s()
                    call()
                    seconds[way].append(time.process_time() + server.processor_s() - began)
    finally:
        server.end()
    return {"name": NAME, "floor": FLOOR, "processor_s": seconds}


def markdown(figures: dict[str, Any]) -> list[str]:
    """Returns the lines of the report."""
    seconds = figures["processor_s"]
    times = statistics.median(as_json / typed for as_json, typed in zip(seconds["json"], seconds["typed"], strict=True))
    json_s, typed_s = (statistics.median(seconds[way]) for way in ("json", "typed"))
    return [
        "",
        "| a DataFrame by the Python client, processor time of client and server | JSON | typed | times JSON |",
        "|---|---|---|---|",
        f"| {figures['name']} | {json_s:.2f} s | {typed_s:.2f} s | **{times:.1f}** (floor {figures['floor']:g}) |",
    ]
