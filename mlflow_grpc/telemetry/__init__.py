"""Metrics for Prometheus, and traces for OpenTelemetry. Imports neither gRPC nor MLflow."""
