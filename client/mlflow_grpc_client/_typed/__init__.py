"""Calls of a model in its own types."""
