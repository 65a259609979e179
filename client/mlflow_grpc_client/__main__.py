"""Entry point of `python -m mlflow_grpc_client`, which is the same as `mlflow-grpc-predict`."""

from mlflow_grpc_client._cli.command import main

main()
