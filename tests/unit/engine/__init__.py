"""Tests of mlflow_grpc/engine."""
