"""Tests of mlflow_grpc/telemetry."""
