"""Tests of mlflow_grpc/http."""
