"""Entry point of `python -m mlflow_grpc`, which is the same as `mlflow-grpc`."""

from mlflow_grpc.cli import main

main(prog_name="mlflow-grpc")
