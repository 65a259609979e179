"""Version of MLflow that the tests run with."""

import mlflow
import pandas
from mlflow.sklearn import SUPPORTED_SERIALIZATION_FORMATS
from packaging.version import Version


def mlflow_is_before(version: str) -> bool:
    """Returns True if the installed MLflow is older than a version."""
    return Version(mlflow.__version__) < Version(version)


def has_pandas_2() -> bool:
    """Returns True if the installed pandas is older than version 3, whose texts have a type of their own."""
    return Version(pandas.__version__) < Version("3")


SKLEARN_FORMAT = "skops" if "skops" in SUPPORTED_SERIALIZATION_FORMATS else "cloudpickle"
"""Format in which MLflow saves scikit-learn models without a warning: skops, which MLflow before 3.9 does not have."""
