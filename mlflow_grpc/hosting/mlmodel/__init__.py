"""Hosting of packages that implement the MLModel interface, and the bridges between them and MLflow models."""
