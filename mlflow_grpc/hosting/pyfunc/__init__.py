"""Hosting of MLflow models: fetching, loading and running them as `mlflow models serve` does."""
