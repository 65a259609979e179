"""What a model takes and gives, in types of our own: made from signatures and schemas, and what can be made of them.

Rule of this package: it knows descriptions only. Nothing here has seen a payload, a model or a library that either
comes from; schemas come in as the JSON that MLflow and pydantic write of them.
"""
