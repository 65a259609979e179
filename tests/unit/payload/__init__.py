"""Tests of mlflow_grpc/payload."""
