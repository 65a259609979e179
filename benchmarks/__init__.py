"""Comparison of this server, `mlflow models serve` and a bare gRPC echo in one run: `python -m benchmarks`."""
