"""Elements of BYTES tensors as texts, bytes, times or JSON values, by their content types.

Source of the content types: MLServer's codecs. Unlike there, bytes that are base64 by chance are never decoded.

Rule of this module: the content type of the tensor decides, and without one the type of the model's column.
"""

import base64
import binascii
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_grpc.contract.types import AnyValue, Enumeration
from mlflow_grpc.payload.tensors.datatypes import BYTES
from mlflow_grpc.payload.tensors.reader import InputTensor
from mlflow_grpc.payload.tensors.refusals import refuse_input
from mlflow_grpc.payload.tensors.table import BASE64, DATETIME, JSON, NUMPY, PANDAS, STR, TensorColumn

MIN_TEXTS_BYTES = 2**28
"""Size of an array of texts that is never refused, in bytes."""

MAX_EXPANSION = 16
"""Maximum size of a larger array of texts, in sizes of its texts."""

_CHARACTER_BYTES = 4  # In numpy.


def of_column(tensor: InputTensor, column: TensorColumn) -> list[Any]:
    """Returns a value for each element, for a column of the model.

    Args:
        tensor: A tensor of BYTES.
        column: The column. Any column takes JSON values.

    Raises:
        InvalidPayload: The column does not take the content type, or an element does not have its form.

    """
    content_type = "" if tensor.content_type in (NUMPY, PANDAS) else tensor.content_type
    if content_type == JSON or (column.content_type == JSON and content_type == ""):
        return _json_values(tensor)
    if column.datatype != BYTES:
        refuse_input(
            tensor.name, f"it is BYTES, and the model takes {column.datatype}, or BYTES with content_type {JSON}"
        )
    if column.content_type == "":
        return byte_strings(tensor)
    if column.content_type == JSON:
        takes_text = content_type == STR and isinstance(column.type, AnyValue)
    else:
        takes_text = content_type in ("", STR, column.content_type) or isinstance(column.type, Enumeration)
    if not takes_text:
        refuse_input(tensor.name, f"its content_type must be {column.content_type}, or {JSON}")
    return texts(tensor)


def texts(tensor: InputTensor) -> list[str]:
    """Returns the elements as texts; raises InvalidPayload for one that is not UTF-8."""
    try:
        return [element.decode() for element in tensor.elements]
    except UnicodeDecodeError as error:
        index = next(index for index, element in enumerate(tensor.elements) if element == error.object)
        refuse_input(tensor.name, f"its element {index} is not UTF-8; describe other bytes by a content_type")


def array_texts(tensor: InputTensor) -> list[str]:
    """Returns the elements as texts for an array, in which each text takes the size of the longest.

    Raises:
        InvalidPayload: One is not UTF-8, or the array would take too much memory.

    """
    elements = texts(tensor)
    size = max(map(len, elements), default=0) * len(elements) * _CHARACTER_BYTES
    if size > MIN_TEXTS_BYTES and size > MAX_EXPANSION * sum(map(len, tensor.elements)):
        refuse_input(
            tensor.name,
            f"it would take {size} bytes as an array, in which each text takes the size of the longest; send long and "
            "short texts in different requests",
        )
    return elements


def byte_strings(tensor: InputTensor) -> list[bytes]:
    """Returns the elements as bytes, decoded if their content type is base64.

    Raises:
        InvalidPayload: The content type is another one, or an element is not base64.

    """
    if tensor.content_type == BASE64:
        return _from_base64(tensor)
    if tensor.content_type not in ("", NUMPY, PANDAS):
        refuse_input(tensor.name, f"its content_type must be {BASE64} or {JSON}, or left out for bytes as they are")
    return list(tensor.elements)


def undeclared_array(tensor: InputTensor) -> npt.NDArray[Any]:
    """Returns the array for a model that declares no inputs.

    Texts have numpy's type of text, as MLflow's parser makes them. All other values but times are objects.

    Raises:
        InvalidPayload: The content type is unknown, or an element does not have its form.

    """
    content_type = tensor.content_type
    if content_type == NUMPY:
        return object_array(tensor.elements, tensor.shape)
    if content_type == BASE64:
        return object_array(_from_base64(tensor), tensor.shape)
    if content_type == JSON:
        return object_array(_json_values(tensor), tensor.shape)
    if content_type not in ("", STR, DATETIME):
        allowed = ", ".join((STR, BASE64, DATETIME, JSON, NUMPY))
        refuse_input(tensor.name, f"its content_type must be one of {allowed}, or left out for texts")
    array = np.array(array_texts(tensor))
    if content_type == DATETIME:
        try:
            array = array.astype("datetime64[ns]")
        except ValueError:
            refuse_input(tensor.name, "an element is not a time in ISO 8601 without a zone")
    return array.reshape(tensor.shape)


def _from_base64(tensor: InputTensor) -> list[bytes]:
    decoded = []
    for index, element in enumerate(tensor.elements):
        try:
            decoded.append(base64.b64decode(element.replace(b"\n", b""), validate=True))
        except binascii.Error:
            refuse_input(tensor.name, f"its element {index} is not base64; send bytes without a content_type")
    return decoded


def _json_values(tensor: InputTensor) -> list[Any]:
    decoded = []
    for index, element in enumerate(tensor.elements):
        try:
            decoded.append(json.loads(element))
        except (ValueError, RecursionError):
            refuse_input(tensor.name, f"its element {index} is not JSON; a text in JSON has quotes around it")
    return decoded


def object_array(items: list[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Returns an array of Python objects, among which lists stay lists."""
    array = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        array[index] = item
    return array.reshape(shape)
