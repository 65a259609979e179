"""A registry with two versions of the stepper under the name churn, made in a process of its own.

MLflow keeps the engine of each database, and the experiment in use, for as long as a process runs.
"""

import sys

import mlflow

from tests.support import stepper


def main() -> None:
    """Creates the registry; the arguments are the URIs of the database and of the artifacts."""
    uri, artifacts = sys.argv[1:]
    mlflow.set_tracking_uri(uri)
    mlflow.create_experiment("e", artifact_location=artifacts)
    mlflow.set_experiment("e")
    for _ in range(2):
        mlflow.pyfunc.log_model(
            artifact_path="m", python_model=stepper.__file__, pip_requirements=["mlflow"], registered_model_name="churn"
        )
    mlflow.MlflowClient().set_registered_model_alias("churn", "champion", "1")
