"""Calls of a model with messages of its own types."""
