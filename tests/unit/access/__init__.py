"""Tests of mlflow_grpc/logs."""
