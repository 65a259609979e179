"""Explanations of refused payloads, in terms of JSON."""
