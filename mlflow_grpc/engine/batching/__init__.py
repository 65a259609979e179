"""Batching: rows of calls that wait at the same time are predicted in one call of the model."""
