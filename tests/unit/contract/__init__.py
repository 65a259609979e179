"""Tests of mlflow_grpc/contract."""
