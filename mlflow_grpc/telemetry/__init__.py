"""Metrics of a running server for Prometheus: counters, gauges and histograms. Imports neither gRPC nor MLflow."""
