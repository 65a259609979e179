"""What the .proto text says of a field beside its type.

Rule of this module: words for people. Nothing is read out of them again.
"""

import json

from mlflow_grpc.contract.shapes import Array, Plain, Shape, Timestamp
from mlflow_grpc.contract.types import Field


def words_of(each: Field, name: str, shape: Shape) -> str:
    """What a comment says of a field."""
    said = [each.description]
    if each.name != name:
        said.append(f"In the model: {json.dumps(each.name, ensure_ascii=False)}." if each.name else "")
    said.append("Required." if each.needs_value else "")
    if not each.required and each.default is not None:
        said.append(f"Default: {json.dumps(each.default, ensure_ascii=False)}.")
    if isinstance(shape, Timestamp):
        said.append("A point in time, in UTC.")
    elif isinstance(shape, Plain) and shape.format:
        said.append(f"Format: {shape.format}.")
    elif isinstance(shape, Array):
        said.append(f"{shape.dtype}, of the shape {list(shape.shape)}; -1 is any size.")
    return " ".join(filter(None, said))
