"""Conversion of messages of a model's own types: input messages to records and rows, predictions to output messages."""
