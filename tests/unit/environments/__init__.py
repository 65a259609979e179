"""Tests of mlflow_grpc/environments."""
