"""Tests of mlflow_grpc/services."""
