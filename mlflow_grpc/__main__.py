"""`python -m mlflow_grpc` is `mlflow-grpc`."""

from mlflow_grpc.cli import main

main(prog_name="mlflow-grpc")
