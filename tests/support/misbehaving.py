"""An MLflow model that does what its input says: it returns or raises anything."""

import datetime
import decimal
import enum
import uuid
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode
from mlflow.pyfunc.model import PythonModel

SECRET = "s3cret in /srv/models/private.py"


class Colour(enum.Enum):
    RED = 1


OUTPUTS: dict[str, Any] = {
    "frame": lambda: pd.DataFrame({"a": [1, 2], "b": [0.1, None], "c": ["x", None]}, index=[5, 6]),
    "frame_int_columns": lambda: pd.DataFrame([[1, 2.5]]),
    "frame_duplicate_columns": lambda: pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "frame_types": lambda: pd.DataFrame(
        {
            "when": pd.to_datetime(pd.Series(["2021-01-01", None])),
            "small": np.array([1, 2], "int8"),
            "single": np.array([0.1, 1e-40], "float32"),
            "nullable": pd.array([1, None], dtype="Int64"),
            "kind": pd.Categorical(["x", "y"]),
        }
    ),
    "frame_empty": lambda: pd.DataFrame({"a": []}),
    "series": lambda: pd.Series([1, 2.5], name="s"),
    "series_unnamed": lambda: pd.Series([1]),
    "array": lambda: np.arange(6).reshape(2, 3),
    "array_float32": lambda: np.array([0.1, 1 / 3, 1e-45, 3.4e38], "float32"),
    "array_0d": lambda: np.array(1.5),
    "array_objects": lambda: np.array([1, "a", None], dtype=object),
    "array_datetime": lambda: np.array(["2021-01-01", "NaT"], "datetime64[ns]"),
    "array_days": lambda: np.array(["2021-01-01"], "datetime64[D]"),
    "array_bytes": lambda: np.array([b"ab", b"c"]),
    "array_longdouble": lambda: np.array([1.5], np.longdouble),
    "array_complex": lambda: np.array([1j]),
    "floats": lambda: [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 1e22, 1e16, 123456789.123456789],
    "not_finite": lambda: [float("nan"), float("inf"), float("-inf")],
    "list": lambda: [1, "a", None, True, [2.5], {"k": [1]}],
    "tuple": lambda: (1, (2, 3)),
    "dict": lambda: {"a": np.float32(0.1), "b": np.array([1]), 3: "int key", None: 1, True: 2},
    "numpy_key": lambda: {np.int64(3): 1},
    "scalar": lambda: 3,
    "numpy_scalar": lambda: np.int64(3),
    "string": lambda: 'quote " backslash \\ é 😀 \x00 \ud800',
    "none": lambda: None,
    "bytes": lambda: b"ab" * 60,
    "timestamp": lambda: pd.Timestamp("2021-01-01T00:00:00.123456789"),
    "nat": lambda: pd.NaT,
    "date": lambda: [
        datetime.date(2021, 1, 1),
        datetime.time(1, 2),
        datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC),
    ],
    "na": lambda: [pd.NA],
    "decimal": lambda: decimal.Decimal("1.5"),
    "uuid": lambda: uuid.UUID(int=1),
    "set": lambda: {1, 2},
    "generator": lambda: (item for item in (1, 2)),
    "timedelta": lambda: datetime.timedelta(1),
    "complex": lambda: 1j,
    "enum": lambda: Colour.RED,
    "range": lambda: range(3),
    "frame_in_list": lambda: [pd.DataFrame({"a": [1]})],
    "index": lambda: pd.Index([1]),
    "circular": lambda: _circular(),
    "deep": lambda: _deep(100_000),
    "big_integer": lambda: 10**4000,
    "big_integers_and_floats": lambda: [10**400, 1.0],
    "huge_integers": lambda: [10**5000, 1],
    "numbers": lambda: [1, 2.5, -0.0, 1e-7, 1e22, 5e-324, 2**70],
    "numbers_and_booleans": lambda: [1, True, 2.5],
    "huge_integer": lambda: 10**5000,
}


def _circular() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


def _deep(depth: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    return nested


RAISES: dict[str, Any] = {
    "value_error": lambda: ValueError(SECRET),
    "key_error": lambda: KeyError(SECRET),
    "stop_iteration": lambda: StopIteration(SECRET),
    "system_exit": lambda: SystemExit(SECRET),
    "keyboard_interrupt": lambda: KeyboardInterrupt(SECRET),
    "generator_exit": lambda: GeneratorExit(SECRET),
    "memory_error": lambda: MemoryError(SECRET),
    "timeout_error": lambda: TimeoutError(SECRET),
    "unicode_error": lambda: UnicodeDecodeError("utf-8", b"x", 0, 1, SECRET),
    "huge": lambda: ValueError(SECRET * 100_000),
    "lines": lambda: ValueError(f"{SECRET}\nFAKE LOG LINE\x1b[31m\u2028x\r"),
}


class Misbehaving(PythonModel):
    """`{"inputs": ["return", NAME]}`, `["raise", NAME]` or `["mlflow", ERROR_CODE]`."""

    def predict(self, context, model_input, params=None):
        instruction = model_input["inputs"] if isinstance(model_input, dict) else model_input
        verb, name = (str(item) for item in instruction)
        if verb == "return":
            return OUTPUTS[name]()
        if verb == "raise":
            if name == "cancelled":
                import asyncio

                raise asyncio.CancelledError(SECRET)
            raise RAISES[name]()
        raise MlflowException(SECRET, error_code=ErrorCode.Value(name))


def save(path: Any) -> None:
    """Saves the model, without a signature."""
    mlflow.pyfunc.save_model(path, python_model=__file__, pip_requirements=["mlflow"])


mlflow.models.set_model(Misbehaving())
