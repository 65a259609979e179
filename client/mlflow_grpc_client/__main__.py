"""`python -m mlflow_grpc_client` is `mlflow-grpc-predict`."""

from mlflow_grpc_client._cli.command import main

main()
