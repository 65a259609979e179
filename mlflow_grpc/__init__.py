"""A gRPC server for MLflow models, with the answers that `mlflow models serve` gives."""

__version__ = "0.1.0"
