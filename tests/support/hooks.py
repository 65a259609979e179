"""Functions before and after a model, as a configuration names them."""

import threading

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema


class Sum(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
    """Predicts a + b of each row, and streams both."""

    def predict(self, context, model_input, params=None):
        return (model_input["a"] + model_input["b"]).to_numpy()

    def predict_stream(self, context, model_input, params=None):
        yield from [model_input["a"], model_input["b"]]


def save(path):
    """Saves a Sum of two doubles."""
    signature = ModelSignature(
        Schema([ColSpec(DataType.double, "a"), ColSpec(DataType.double, "b")]), Schema([ColSpec(DataType.double)])
    )
    mlflow.pyfunc.save_model(path, python_model=Sum(), signature=signature, pip_requirements=[])


threads: list[str] = []
rows: list[int] = []


def noted(df):
    """Records thread and row count of each call; multiplies a by ten."""
    threads.append(threading.current_thread().name)
    rows.append(len(df))
    return df.assign(a=df["a"] * 10)


def from_raw(df):
    """Makes the model's columns from a column that the signature does not have."""
    return pd.DataFrame({"a": df["raw"], "b": df["raw"]}) if "raw" in df.columns else df


def negative(predictions):
    return -predictions


def without_b(df):
    return df.drop(columns="b")


def text_in_a(df):
    return df.assign(a="a secret")


def three_columns(df):
    """Returns an array instead of a table, with more columns than the model takes."""
    return df.assign(c=1.0).to_numpy()


def forgets(predictions):
    """Returns nothing."""


def raises(df):
    raise ValueError("a secret")


def refuses(df):
    raise mlflow.MlflowException.invalid_parameter_value("a secret")


def labels(predictions):
    """Returns another type than the signature declares."""
    return [f"label {value:g}" for value in np.asarray(predictions)]


NUMBER = 7
