"""Serves the MLflow model at MODEL_PATH over gRPC: `MODEL_PATH=models/iris python server.py`."""

import sys

from mlflow_grpc.cli import main

if __name__ == "__main__":
    main(["serve", *sys.argv[1:]])
