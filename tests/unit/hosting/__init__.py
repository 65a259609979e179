"""Tests of mlflow_grpc/hosting."""
