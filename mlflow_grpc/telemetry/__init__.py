"""Figures of a running server for Prometheus: counters, gauges and histograms. It imports neither gRPC nor MLflow."""
