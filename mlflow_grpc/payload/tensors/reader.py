"""Input tensors of a request, read from raw or typed contents.

Rule of this module: a tensor is checked against its own datatype and shape, before memory is allocated for it. It does
not know the model.
"""

import struct
from collections import Counter
from dataclasses import dataclass
from itertools import repeat
from math import prod
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from mlflow_grpc.errors import Unsupported
from mlflow_grpc.payload.tensors.datatypes import BF16, BYTES, DATATYPES, Datatype
from mlflow_grpc.payload.tensors.refusals import refuse_input, refuse_request

MAX_INPUTS = 65_536
"""Maximum number of inputs of a request."""

MAX_DIMENSIONS = 32
"""Maximum number of dimensions of a tensor."""

MAX_SIZE = 2**40
"""Maximum size of a dimension."""

MAX_EMPTY_LISTS = 65_536
"""Maximum number of lists in the tensors of a small request that have no elements, such as 5 for the shape [5, 0]."""

CONTENT_TYPE = "content_type"

SHARED_MEMORY = "shared_memory_region"

_LENGTH = struct.Struct("<I")


@dataclass(slots=True)
class InputTensor:
    """An input as it came."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    content_type: str
    """Empty if the tensor has none."""
    elements: Any
    """The elements in row-major order: a flat array, or a list of bytes for BYTES. The array may be read-only."""

    @property
    def rows(self) -> int:
        """Size of the first dimension; 1 without dimensions."""
        return self.shape[0] if self.shape else 1


def read_inputs(message: Any) -> list[InputTensor]:
    """Reads all inputs of a ModelInferRequest.

    Raises:
        InvalidPayload: The inputs contradict themselves, or are more than the server reads.
        Unsupported: An input is in shared memory.

    """
    inputs, raw = message.inputs, list(message.raw_input_contents)
    if len(inputs) > MAX_INPUTS:
        refuse_request(f"The request has {len(inputs)} inputs. Send {MAX_INPUTS} at most.")
    if raw and len(raw) != len(inputs):
        if any(SHARED_MEMORY in tensor.parameters for tensor in inputs):
            _refuse_shared_memory()
        refuse_request(
            f"raw_input_contents has {len(raw)} entries for {len(inputs)} inputs. Send one entry for each input, in "
            "their order, or none and all data in the contents of the inputs."
        )
    tensors = list(map(_read, inputs, raw or repeat(None)))
    if len({tensor.name for tensor in tensors}) < len(tensors):
        names = Counter(tensor.name for tensor in tensors)
        refuse_input(names.most_common(1)[0][0], "it comes twice; send it once")
    if any(0 in tensor.shape for tensor in tensors):
        _check_empty(tensors, message)
    return tensors


def _check_empty(tensors: list[InputTensor], message: Any) -> None:
    """Limits the dimensions of tensors without elements, for which a model may get a list each.

    As in JSON, a request has no more lists than bytes.
    """
    lists = {tensor.name: prod(filter(None, tensor.shape)) for tensor in tensors if 0 in tensor.shape}
    limit = max(MAX_EMPTY_LISTS, message.ByteSize())
    if sum(lists.values()) > limit:
        name = max(lists, key=lists.__getitem__)
        refuse_input(name, f"its shape has no elements, and its other dimensions make more than {limit} empty lists")


def _read(tensor: Any, raw: bytes | None) -> InputTensor:
    name, datatype_name, shape, parameters = tensor.name, tensor.datatype, tuple(tensor.shape), tensor.parameters
    datatype = DATATYPES.get(datatype_name)
    if datatype is None:
        refuse_input(name, f"its datatype must be one of {', '.join(DATATYPES)}")
    content_type = ""
    if parameters:
        if SHARED_MEMORY in parameters:
            _refuse_shared_memory()
        content_type = parameters[CONTENT_TYPE].string_param if CONTENT_TYPE in parameters else ""
    if len(shape) > MAX_DIMENSIONS:
        refuse_input(name, f"its shape has {len(shape)} dimensions; send {MAX_DIMENSIONS} at most")
    if shape and (min(shape) < 0 or max(shape) > MAX_SIZE):
        refuse_input(name, f"its shape has a dimension below 0 or above {MAX_SIZE}; send the sizes that the data has")
    count = prod(shape)  # As Python's integers, which never overflow.
    if raw is None:
        elements = _typed(tensor, datatype_name, datatype, count)
    elif tensor.HasField("contents"):
        refuse_input(name, "it has contents although the request has raw_input_contents; send one of the two")
    elif datatype_name == BYTES:
        elements = split_byte_strings(name, raw, count)
    else:
        elements = _numbers(name, raw, datatype, count)
    if datatype_name == BF16:
        elements = (elements.astype(np.uint32) << 16).view(np.float32)
    return InputTensor(name, datatype_name, shape, content_type, elements)


def _refuse_shared_memory() -> NoReturn:
    raise Unsupported("This server has no shared memory. Send the data in the request.")


def _numbers(name: str, raw: bytes, datatype: Datatype, count: int) -> npt.NDArray[Any]:
    dtype = datatype.dtype
    size = count * dtype.itemsize
    if len(raw) != size:
        refuse_input(name, f"its raw contents have {len(raw)} bytes, and its shape and datatype need {size}")
    array = np.frombuffer(raw, dtype)
    if dtype.kind == "b" and size and array.view(np.uint8).max() > 1:
        refuse_input(name, "its raw contents have bytes other than 0 and 1, which are no booleans")
    return array


def split_byte_strings(name: str, raw: bytes, count: int) -> list[bytes]:
    """Returns the elements of BYTES in raw contents; raises InvalidPayload for an input that they do not fill.

    Args:
        name: Name of the tensor.
        raw: The elements, each with its length before it.
        count: Number of elements.

    """
    if count * _LENGTH.size > len(raw):
        refuse_input(
            name,
            f"its raw contents have {len(raw)} bytes, too few for the {count} elements of its shape, which begin with "
            "their lengths in 4 bytes",
        )
    elements = []
    offset, end = 0, len(raw)
    for index in range(count):
        start = offset + _LENGTH.size
        offset = start + _LENGTH.unpack_from(raw, offset)[0] if start <= end else end + 1
        if offset > end:
            refuse_input(name, f"its element {index} is longer than its raw contents, which have {end} bytes")
        elements.append(raw[start:offset])
    if offset != end:
        refuse_input(name, f"its raw contents have {end - offset} bytes after the {count} elements of its shape")
    return elements


def _typed(tensor: Any, datatype_name: str, datatype: Datatype, count: int) -> Any:
    """Reads elements from the field of the datatype."""
    name = tensor.name
    if not datatype.contents:
        refuse_input(name, f"{datatype_name} has no field in contents; send raw_input_contents")
    fields = tensor.contents.ListFields()
    if any(field.name != datatype.contents for field, _ in fields):
        refuse_input(name, f"its contents have {fields[0][0].name}, and {datatype_name} is in {datatype.contents}")
    values = fields[0][1] if fields else ()
    if len(values) != count:
        refuse_input(name, f"its contents have {len(values)} elements, and its shape needs {count}")
    if datatype_name == BYTES:
        return list(values)
    array = np.array(values, dtype=_WIDE.get(datatype.contents, datatype.dtype))
    converted = array.astype(datatype.dtype, copy=False)
    if converted is not array and not np.array_equal(converted, array):
        refuse_input(name, f"its contents have a number outside of {datatype_name}")
    return converted


_WIDE = {"int_contents": np.dtype(np.int32), "uint_contents": np.dtype(np.uint32)}
"""The type of the elements of fields that hold several datatypes."""
