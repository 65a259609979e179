"""Contracts: the inputs and outputs of models as types, and the messages and schemas that are made from these types.

Rule of this package: it knows descriptions only. It sees no payload, no model and no model library. Schemas come in as
the JSON that MLflow and pydantic write.
"""
