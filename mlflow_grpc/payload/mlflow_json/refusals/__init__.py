"""Explanations of refused payloads for callers who know JSON and the model's signature."""
