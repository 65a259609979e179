"""The MLflow that the tests run against."""

import mlflow
from packaging.version import Version

MLFLOW = Version(mlflow.__version__)
