"""Ray Serve as the host of MLflow models: what a configuration of Ray Serve names.

Rule of this package: it alone imports Ray. Ray Serve's proxies import it too, so that only replicas import MLflow, by
`mlflow_grpc.ray.replica`.
"""

try:
    import ray as _ray  # noqa: F401 - an error that says what to install
except ModuleNotFoundError as error:
    from mlflow_grpc.distribution import install_source

    raise ModuleNotFoundError(f"mlflow_grpc.ray needs Ray Serve: pip install {install_source('ray')}") from error

from mlflow_grpc.ray.application import Arguments, app
from mlflow_grpc.ray.autoscaling import ByUtilization
from mlflow_grpc.ray.registration import add_to_server

__all__ = ["Arguments", "ByUtilization", "add_to_server", "app"]
