"""A model of orders that files are scored with, its rows, and gates for tests that stop a run in the middle."""

import threading
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

BAD_PRICE = -1.0
"""The model raises for rows with this price."""

GATE_PRICE = -2.0
"""The model waits for `gate` before it answers to rows with this price."""

reached = threading.Event()
"""Set when the model waits."""
gate = threading.Event()
row_counts: list[int] = []
"""The number of rows of each call that was answered."""


class Orders(PythonModel):
    """The total of an order, its name in capitals, and whether it is large."""

    def predict(self, context, model_input, params=None):
        """Returns a row for each row."""
        if (model_input["price"] == BAD_PRICE).any():
            raise ValueError("a price below zero")
        if (model_input["price"] == GATE_PRICE).any():
            reached.set()
            assert gate.wait(60)
        row_counts.append(len(model_input))
        total = model_input["price"] * model_input["count"] * (params or {}).get("factor", 1.0)
        total -= model_input["discount"].fillna(0.0)
        return pd.DataFrame(
            {
                "total": total,
                "label": model_input["name"].str.upper(),
                "is_large": (total > 500) | model_input["is_gift"],
            }
        )


class Untyped(PythonModel):
    """Sums the numbers of a row; it has no signature."""

    def predict(self, context, model_input):
        """Returns a number for each row."""
        return [float(total) for total in model_input.sum(axis=1)]


class Summary(PythonModel):
    """One number for any number of rows."""

    def predict(self, context, model_input):
        """Returns a single number."""
        return [float(model_input["price"].sum())]


SIGNATURE = ModelSignature(
    Schema(
        [
            ColSpec(DataType.double, "price"),
            ColSpec(DataType.long, "count"),
            ColSpec(DataType.string, "name"),
            ColSpec(DataType.boolean, "is_gift"),
            ColSpec(DataType.double, "discount", required=False),
        ]
    ),
    Schema(
        [ColSpec(DataType.double, "total"), ColSpec(DataType.string, "label"), ColSpec(DataType.boolean, "is_large")]
    ),
    ParamSchema([ParamSpec("factor", DataType.double, 1.0)]),
)


def save(model: PythonModel, path: Path, signature: ModelSignature | None = None) -> None:
    """Saves a model without the requirements that MLflow would infer for a minute."""
    mlflow.pyfunc.save_model(path, python_model=model, signature=signature, pip_requirements=[])


def orders(count: int, *, start: int = 0) -> pd.DataFrame:
    """Rows for the model, and the columns `id`, `city` and `placed_at` that it does not take."""
    numbers = np.arange(start, start + count)
    return pd.DataFrame(
        {
            "id": numbers,
            "price": numbers * 0.1 + 0.3,
            "count": numbers % 7 + 2**53 + 1,
            "name": [f'Ärmel "{number}", {number % 3}\nmore' for number in numbers],
            "is_gift": numbers % 5 == 0,
            "discount": np.where(numbers % 3 == 0, np.nan, numbers / 7),
            "city": [f"0{number % 100:02}" for number in numbers],
            "placed_at": pd.Timestamp("2026-01-31 12:00:00.000001") + pd.to_timedelta(numbers, unit="s"),
        }
    )


INPUTS = ["price", "count", "name", "is_gift", "discount"]
