"""The tensors of a model: the one table between MLflow's types and datatype, shape and content type.

| type | datatype | shape | content type |
|---|---|---|---|
| boolean, integer, long, float, double | BOOL, INT32, INT64, FP32, FP64 | [-1, 1] | |
| string | BYTES | [-1, 1] | str |
| binary | BYTES | [-1, 1] | |
| datetime | BYTES | [-1, 1] | datetime |
| Array, Object, Map, AnyType, and unions of MLModel packages | BYTES | [-1, 1] | pd_json |
| a tensor of numbers or booleans | that of its dtype | that of the signature | |
| a tensor of strings, of bytes, of points in time | BYTES | that of the signature | str, none, datetime |

Names and shapes of columns are those of MLServer's runtime for MLflow models. Inputs and outputs without a name are
`input-0`, `output-0` and so on.

Rule of this module: it describes tensors. It reads and writes none.
"""

from dataclasses import dataclass

from mlflow_grpc.contract.types import Contract, DataType, Enumeration, Record, Scalar, Tensor, Type
from mlflow_grpc.payload.tensors.datatypes import BYTES, OF_DTYPE

STR, BASE64, DATETIME, JSON = "str", "base64", "datetime", "pd_json"
"""Content types of single tensors of BYTES."""

NUMPY, PANDAS, DICT = "np", "pd", "dict"
"""Content types of all tensors of a request: one array, columns, or arrays by their names."""

ANY_SIZE = -1

_SCALARS = {
    DataType.BOOLEAN: ("BOOL", ""),
    DataType.INTEGER: ("INT32", ""),
    DataType.LONG: ("INT64", ""),
    DataType.FLOAT: ("FP32", ""),
    DataType.DOUBLE: ("FP64", ""),
    DataType.STRING: (BYTES, STR),
    DataType.BINARY: (BYTES, ""),
    DataType.DATETIME: (BYTES, DATETIME),
}
"""Datatype and content type of scalar columns."""

_OF_NAME = {dtype.name: datatype for dtype, datatype in OF_DTYPE.items()}


@dataclass(frozen=True)
class TensorColumn:
    """An input or output of a model as a tensor."""

    name: str
    type: Type
    datatype: str
    shape: tuple[int, ...]
    """-1 for a dimension of any size."""
    content_type: str
    """Content type of the elements; empty for numbers, booleans and bytes."""
    required: bool = True
    is_unnamed: bool = False
    """True if the model has no name for it, so that the name is a position."""

    @property
    def is_tensor(self) -> bool:
        """True if the model has a tensor here, and False if it has a column with a value for each row."""
        return isinstance(self.type, Tensor)


def inputs_of(contract: Contract) -> tuple[TensorColumn, ...]:
    """Returns the inputs of a model; none if it does not declare any."""
    return _columns(contract.inputs, "input")


def outputs_of(contract: Contract) -> tuple[TensorColumn, ...]:
    """Returns the outputs of a model; none if it does not declare any."""
    return _columns(contract.outputs, "output")


def content_type_of(contract: Contract) -> str:
    """Returns the content type of requests to a model; empty if it declares no inputs."""
    match contract.inputs:
        case None:
            return ""
        case Tensor():
            return NUMPY
        case Record() as inputs:
            return DICT if inputs.fields and isinstance(inputs.fields[0].type, Tensor) else PANDAS


def _columns(declared: Record | Tensor | None, prefix: str) -> tuple[TensorColumn, ...]:
    if declared is None:
        return ()
    if isinstance(declared, Tensor):
        return (TensorColumn(f"{prefix}-0", declared, *_form(declared), is_unnamed=True),)
    return tuple(
        TensorColumn(
            field.name or f"{prefix}-{index}",
            field.type,
            *_form(field.type),
            required=field.needs_value,
            is_unnamed=not field.name,
        )
        for index, field in enumerate(declared.fields)
    )


def _form(type_: Type) -> tuple[str, tuple[int, ...], str]:
    """Returns datatype, shape and content type."""
    if isinstance(type_, Tensor):
        if type_.dtype in _OF_NAME:
            return _OF_NAME[type_.dtype], type_.shape, ""
        is_time = type_.dtype.startswith("datetime64")
        return BYTES, type_.shape, DATETIME if is_time else ("" if type_.dtype == "bytes" else STR)
    shape = (ANY_SIZE, 1)
    if isinstance(type_, Scalar):
        datatype, content_type = _SCALARS[type_.data_type]
        return datatype, shape, content_type
    return BYTES, shape, STR if isinstance(type_, Enumeration) else JSON
