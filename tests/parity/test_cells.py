"""Cells without a value, and bytes, on the way through a frame to an MLModel class that was saved as an MLflow model."""

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
    """What the saved model of a class gives for a frame, by MLflow's own predict."""
    folder = tmp_path_factory.mktemp("models")

    def predict(name: str, rows: list[dict[str, Any]]) -> list[Any]:
        if not (folder / name).exists():
            path = f"tests.support.serialized_models.{name}"
            bridges.save_model(path, folder / name, pip_requirements=["ml-base"])
        predictions: list[Any] = mlflow.pyfunc.load_model(str(folder / name)).predict(pd.DataFrame(rows))
        return predictions

    return predict


def by_class(schema: Any, record: dict[str, Any]) -> Any:
    """The oracle: the record without a frame and without MLflow."""
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
def test_a_row_alone_is_the_record_that_was_sent(saved, record):
    """NaN stays for a number, and None is given to what takes it."""
    assert str(saved("Cells", [record])) == str([by_class(models.CellsSchema, record)])


def test_bytes_are_those_of_the_column(saved):
    """MLflow has decoded them: a schema that decodes base64 itself gets them too."""
    answer = saved("Cells", [{"number": 1.5, "text": "x", "encoded": b"abcd"}])
    assert answer == [by_class(models.CellsSchema, {"number": 1.5, "text": "x", "encoded": "YWJjZA=="})]


def test_bytes_in_a_strict_model(saved):
    """Its dates are texts, beside them too."""
    assert saved("Strict", [{"data": b"x", "day": "2020-02-29"}]) == [{"data": "x", "day": "2020-02-29"}]


def test_a_cell_among_several_rows_may_be_one_that_was_left_out(saved):
    """A frame has nothing else for it: what has a default gets it; what has none is what the cell holds."""
    rows: list[dict[str, Any]] = [
        {"number": 1.5, "text": "x", "default": 2.0, "other": "y"},
        {"number": NAN, "text": None},
    ]
    assert str(saved("Cells", rows)) == str([by_class(models.CellsSchema, row) for row in rows])


def test_pydantic_1(saved):
    """It knows by itself which fields take None."""
    assert saved("OldCells", [{"number": 1.5, "text": None, "other": None}]) == [
        {"number": 1.5, "text": None, "other": None}
    ]
    assert saved("OldCells", [{"number": 1.5, "text": "x", "other": "y"}, {"number": 1.5, "text": None}]) == [
        {"number": 1.5, "text": "x", "other": "y"},
        {"number": 1.5, "text": None, "other": "other"},
    ]
