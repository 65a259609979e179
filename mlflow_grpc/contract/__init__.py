"""Contracts: a model's inputs and outputs as types, and the messages and schemas that are made from these types.

Rule of this package: it handles descriptions only, and no payload, model or model library. Schemas come in as the JSON
that MLflow and pydantic write.
"""
