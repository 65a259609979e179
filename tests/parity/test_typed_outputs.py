"""Tables that a model returns, typed and as JSON: a value is the same value in both, and missing in both otherwise."""

import base64
import json
import math
import sys
from collections.abc import Iterator
from typing import Any

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array

from mlflow_grpc.config import ModelConfig
from tests.parity.conftest import Oracle, oracle_of
from tests.support.servers import Caller, serving_models
from tests.support.typed import TypedCaller, batch_of, plain, rows_of

cloudpickle.register_pickle_by_value(sys.modules[__name__])

KINDS: dict[str, Any] = {
    "text": DataType.string, "whole": DataType.long, "flag": DataType.boolean, "data": DataType.binary,
    "when": DataType.datetime, "number": DataType.double, "small": DataType.float, "list": Array(DataType.double),
}  # fmt: skip
NAMED = Schema([ColSpec(data_type, name, required=False) for name, data_type in KINDS.items()])


def named() -> pd.DataFrame:
    when = [pd.Timestamp("2020-02-29T12:00:00.123456789"), pd.NaT, pd.Timestamp("2021-01-01")]
    return pd.DataFrame(
        {
            "text": ["a", None, ""], "whole": [1, None, 3], "flag": [True, None, False], "data": [b"\xff", None, b""],
            "when": when, "number": [1.5, math.nan, None], "small": np.array([0.5, math.nan, 1], "f4"),
            "list": [[1.5], None, []],
        },
        index=[7, 7, 0],
    )  # fmt: skip


TABLES: dict[str, tuple[Schema, Any]] = {
    "named": (NAMED, named),
    "extension types": (NAMED, lambda: named().convert_dtypes()),
    "plain columns": (
        Schema([ColSpec(KINDS[name], name, required=False) for name in ("whole", "flag", "number", "small", "text")]),
        lambda: pd.DataFrame(
            {
                "text": ["a", None, ""],
                "number": [1.5, math.nan, -0.0],
                "small": np.array([0.5, math.nan, 1], "f4"),
                "flag": [True, False, True],
                "whole": [2**63 - 1, -1, 0],
            },
        ),
    ),
    "texts that are no texts": (
        Schema([ColSpec(DataType.string, "text"), ColSpec(DataType.double, "number")]),
        lambda: pd.DataFrame({"text": ["a", b"b", pd.Timestamp("2020-02-29")], "number": [1.0, 2.0, 3.0]}),
    ),
    "labels that are numbers": (
        Schema([ColSpec(DataType.string, "0", required=False), ColSpec(DataType.long, "1", required=False)]),
        lambda: pd.DataFrame([["a", 1], [None, None], ["", 3]]),
    ),
    "texts": (Schema([ColSpec(DataType.string)]), lambda: pd.Series(["a", None, ""])),
    "whole": (Schema([ColSpec(DataType.long)]), lambda: pd.Series([1, None, 3])),
    "floats": (Schema([ColSpec(DataType.double)]), lambda: pd.Series([1.5, None, -0.0])),
    "series with a name": (Schema([ColSpec(DataType.long, "n")]), lambda: pd.Series([1, None, 3], name="n")),
    "one column": (Schema([ColSpec(DataType.double)]), lambda: pd.DataFrame({"p": [1.5, math.nan, -0.0]})),
    "one column without a label": (Schema([ColSpec(DataType.string)]), lambda: pd.DataFrame([["a"], [None], [""]])),
    "one column of lists": (Schema([ColSpec(Array(DataType.long))]), lambda: pd.DataFrame({"p": [[1], [], [2, 3]]})),
}


class Table(PythonModel):
    """Returns the rows of a table whose indexes are in the input."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def predict(self, context, model_input, params=None):
        return self.make().iloc[model_input["row"].tolist()]


@pytest.fixture(scope="module", params=TABLES)
def served(request, tmp_path_factory) -> Iterator[tuple[Schema, TypedCaller, Oracle]]:
    """One of the models: its output schema, its typed RPCs, and MLflow's own answers for it."""
    schema, make = TABLES[request.param]
    path = tmp_path_factory.mktemp("tables") / "m"
    signature = ModelSignature(Schema([ColSpec(DataType.long, "row")]), schema)
    mlflow.pyfunc.save_model(path, python_model=Table(make), signature=signature, pip_requirements=["mlflow"])
    with (
        serving_models([(ModelConfig(uri=str(path), name="m", endpoint=True), None)]) as running,
        Caller(running.address) as call,
    ):
        yield schema, TypedCaller(call.channel), oracle_of(path)


def expected(schema: Schema, oracle: Oracle, rows: list[int]) -> list[dict[str, Any]]:
    """Returns the values in MLflow's answer, without nulls and, except for floats, without NaN and NaT."""
    status, answer = oracle(json.dumps({"inputs": {"row": rows}}), "application/json")
    assert status == 200, answer
    floats = {spec.name or name_of(schema) for spec in schema if spec.type in (DataType.double, DataType.float)}
    records = []
    for row in json.loads(answer)["predictions"]:
        is_named = schema.has_input_names() and set(row) <= set(schema.input_names())
        named = row if is_named else {name_of(schema): next(iter(row.values()))}
        records.append({name: value for name, value in named.items() if not is_none(value, is_float=name in floats)})
    return records


def name_of(schema: Schema) -> str:
    """Returns the name of the field for the only output."""
    return next(iter(schema)).name or "prediction"


def is_none(value: Any, *, is_float: bool) -> bool:
    return value is None or value == "NaT" or (not is_float and isinstance(value, float) and math.isnan(value))


def as_json(message: Any, schema: Schema) -> dict[str, Any]:
    """Returns a row in its JSON form."""
    labels = [spec.name or name_of(schema) for spec in schema]
    columns = dict(zip((field.name for field in message.DESCRIPTOR.fields), labels, strict=False))
    record = {}
    for name, value in plain(message).items():
        field_value, column = getattr(message, name), columns[name]
        record[column] = value
        if isinstance(value, bytes):
            record[column] = base64.encodebytes(value).decode()
        elif hasattr(field_value, "seconds"):
            record[column] = pd.Timestamp(field_value.seconds * 10**9 + field_value.nanos).isoformat()
        elif hasattr(field_value, "values"):
            record[column] = list(field_value.values)
    return record


@pytest.mark.parametrize("rows", [[0, 1, 2], pytest.param([1], marks=pytest.mark.deep), [2, 0]])
def test_tables(served, rows):
    """Missing values are left out and other values are equal, alone and in rows."""
    schema, typed, oracle = served
    messages = [typed.input("m_predict", {"row": row}) for row in rows]
    alone = [typed("m_predict", message) for message in messages]
    together = rows_of(typed("m_predict_batch", batch_of(typed, "m", messages)), type(alone[0]))
    exact_rows = [exact(row) for row in expected(schema, oracle, rows)]
    assert [exact(as_json(message, schema)) for message in together] == exact_rows
    assert [exact(as_json(message, schema)) for message in alone] == exact_rows


def exact(row: dict[str, Any]) -> dict[str, str]:
    """Returns a row for comparison, with NaN equal to itself, and with the sign of zeros."""
    return {name: repr(float(value) if type(value) is int else value) for name, value in row.items() if value != []}
