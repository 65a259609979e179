"""Version of MLflow that the tests run with."""

import mlflow
from mlflow.sklearn import SUPPORTED_SERIALIZATION_FORMATS
from packaging.version import Version


def mlflow_is_before(version: str) -> bool:
    """Returns True if the installed MLflow is older than a version."""
    return Version(mlflow.__version__) < Version(version)


SKLEARN_FORMAT = "skops" if "skops" in SUPPORTED_SERIALIZATION_FORMATS else "cloudpickle"
"""Format in which MLflow saves scikit-learn models without a warning: skops, which MLflow before 3.9 does not have."""
