"""Benchmark of other servers of MLflow models: all of them serve the same model in the same run."""
