"""Cells without a value, and bytes, in frames for an MLModel class that was saved as an MLflow model."""

import math
from typing import Any

import mlflow
import pandas as pd
import pytest

from mlflow_grpc import mlmodel as bridges
from tests.support import serialized_models as models

NAN = math.nan


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Returns the answers of a saved class for a frame, by MLflow's own predict."""
    folder = tmp_path_factory.mktemp("models")

    def predict(name: str, rows: list[dict[str, Any]]) -> list[Any]:
        if not (folder / name).exists():
            path = f"tests.support.serialized_models.{name}"
            bridges.save_model(path, folder / name, pip_requirements=["ml-base"])
        predictions: list[Any] = mlflow.pyfunc.load_model(str(folder / name)).predict(pd.DataFrame(rows))
        return predictions

    return predict


def by_class(schema: Any, record: dict[str, Any]) -> Any:
    """Validates a record without a frame and without MLflow, as the reference."""
    return schema.model_validate(record).model_dump(mode="json")


@pytest.mark.parametrize(
    "record",
    [
        {"number": NAN, "text": "x"},
        {"number": 1.5, "text": None},
        {"number": 1.5, "text": "x", "default": NAN},
        {"number": 1.5, "text": "x", "other": None},
        {"number": 1.5, "text": "x", "data": [b"\xc3\xa9", b""]},
    ],
)
def test_a_single_row_is_the_record_that_was_sent(saved, record):
    """NaN stays NaN for a number, and a field that takes None gets None."""
    assert str(saved("Cells", [record])) == str([by_class(models.CellsSchema, record)])


def test_bytes_reach_schemas_that_decode_base64(saved):
    """A schema that decodes base64 itself gets the bytes that MLflow has decoded."""
    answer = saved("Cells", [{"number": 1.5, "text": "x", "encoded": b"abcd"}])
    assert answer == [by_class(models.CellsSchema, {"number": 1.5, "text": "x", "encoded": "YWJjZA=="})]


def test_bytes_in_a_strict_model(saved):
    """In a strict model with bytes, dates are still texts."""
    assert saved("Strict", [{"data": b"x", "day": "2020-02-29"}]) == [{"data": "x", "day": "2020-02-29"}]


def test_empty_cells_among_several_rows_may_be_absent_fields(saved):
    """Among several rows, an empty cell may be an absent field: a field with a default gets it, others get the cell's
    value."""
    rows: list[dict[str, Any]] = [
        {"number": 1.5, "text": "x", "default": 2.0, "other": "y"},
        {"number": NAN, "text": None},
    ]
    assert str(saved("Cells", rows)) == str([by_class(models.CellsSchema, row) for row in rows])


def test_pydantic_1(saved):
    """pydantic 1 itself knows which fields take None."""
    assert saved("OldCells", [{"number": 1.5, "text": None, "other": None}]) == [
        {"number": 1.5, "text": None, "other": None}
    ]
    assert saved("OldCells", [{"number": 1.5, "text": "x", "other": "y"}, {"number": 1.5, "text": None}]) == [
        {"number": 1.5, "text": "x", "other": "y"},
        {"number": 1.5, "text": None, "other": "other"},
    ]
