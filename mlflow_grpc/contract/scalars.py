"""Which of protobuf's types a scalar has, and an element of a tensor.

Rule of this module: tables.
"""

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from mlflow_grpc.contract.types import Kind

SCALARS: dict[Kind, "Proto.Type.ValueType"] = {
    Kind.BOOLEAN: Proto.TYPE_BOOL,
    Kind.INTEGER: Proto.TYPE_INT32,
    Kind.LONG: Proto.TYPE_INT64,
    Kind.FLOAT: Proto.TYPE_FLOAT,
    Kind.DOUBLE: Proto.TYPE_DOUBLE,
    Kind.STRING: Proto.TYPE_STRING,
    Kind.BINARY: Proto.TYPE_BYTES,
}
_ELEMENTS: dict[str, tuple[str, "Proto.Type.ValueType"]] = {
    "float64": ("double", Proto.TYPE_DOUBLE),
    "float32": ("float", Proto.TYPE_FLOAT),
    "float16": ("float", Proto.TYPE_FLOAT),
    "int64": ("int64", Proto.TYPE_INT64),
    **dict.fromkeys(("int32", "int16", "int8"), ("int32", Proto.TYPE_INT32)),
    "uint64": ("uint64", Proto.TYPE_UINT64),
    **dict.fromkeys(("uint32", "uint16", "uint8"), ("uint32", Proto.TYPE_UINT32)),
    "bool": ("bool", Proto.TYPE_BOOL),
}
_WORDS = ("string", Proto.TYPE_STRING)  # Of every other dtype: str, object.
_BYTES = ("bytes", Proto.TYPE_BYTES)

ELEMENTS = tuple(dict.fromkeys(word for word, _ in (*_ELEMENTS.values(), _WORDS, _BYTES)))
"""The types that an element can have, as a .proto file has them."""


def element(dtype: str) -> tuple[str, "Proto.Type.ValueType"]:
    """The type of an element of a tensor: as a .proto file has it, and in a descriptor."""
    return _BYTES if dtype.startswith(("bytes", "|S", "S")) else _ELEMENTS.get(dtype, _WORDS)
