"""Side by side, in one run: this server, `mlflow models serve` and a bare gRPC echo. `python -m benchmarks`."""
