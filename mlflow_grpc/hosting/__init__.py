"""Hosting of models: the interface of every hosted model, and its implementations for MLflow and MLModel packages."""
