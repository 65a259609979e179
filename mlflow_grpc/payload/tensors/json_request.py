"""Inference requests in JSON, with or without binary tensors after it, as the messages that gRPC clients send.

Source: https://github.com/kserve/open-inference-protocol, "Inference Request JSON Object", and Triton's
extension_binary_data.md.

Rule of this module: it reads the form of a request, and knows no model. All tensors of the message are raw, so that
`reader` checks their datatypes and shapes.
"""

import json
from itertools import chain
from math import prod
from typing import Any, NoReturn

import numpy as np
import orjson

from mlflow_grpc.errors import Unsupported
from mlflow_grpc.payload.tensors.datatypes import BF16, BYTES, DATATYPES
from mlflow_grpc.payload.tensors.reader import MAX_DIMENSIONS, MAX_INPUTS, SHARED_MEMORY
from mlflow_grpc.payload.tensors.refusals import refuse_input, refuse_request
from mlflow_grpc.payload.tensors.writer import raw_byte_strings

BINARY_SIZE, BINARY_DATA, BINARY_OUTPUT = "binary_data_size", "binary_data", "binary_data_output"
"""Parameters of an input, of a requested output, and of a request."""

JSON_LENGTH_HEADER = "inference-header-content-length"
"""Header with the length of the JSON in bytes, if binary tensors follow it."""

_ELEMENTS: dict[str, frozenset[type]] = {
    "b": frozenset((bool,)),
    "i": frozenset((int,)),
    "u": frozenset((int,)),
    "f": frozenset((int, float, type(None))),
}
"""Types of elements in JSON, by the kind of numpy's type. A null among floats is NaN."""

_NARROW = ("FP16", "FP32")

_INT64, _UINT64 = (-(2**63), 2**63), (0, 2**64)


def read_request(body: bytes, json_length: str | None, request_class: Any) -> Any:
    """Returns the ModelInferRequest for the body of an HTTP request.

    The parameters `binary_data` and `binary_data_output` of outputs are parameters of the message, too.

    Args:
        body: JSON, and behind it the binary tensors in the order of the inputs.
        json_length: Value of `JSON_LENGTH_HEADER`; None if all of the body is JSON.
        request_class: Class of ModelInferRequest.

    Raises:
        InvalidPayload: The body does not have the form of a request.
        Unsupported: A tensor is in shared memory.

    """
    length = len(body) if json_length is None else _length(json_length, len(body))
    request = _object(_parsed(body[:length]), "The request")
    message = request_class()
    if request.get("id") is not None:
        message.id = _text(request["id"], "The id of the request")
    _add_parameters(message, request, "the request", skipped="")
    inputs = _objects(request, "inputs")
    if len(inputs) > MAX_INPUTS:
        refuse_request(f"The request has {len(inputs)} inputs. Send {MAX_INPUTS} at most.")
    offset = length
    for tensor in inputs:
        offset = _add_input(message, tensor, body, offset)
    if offset != len(body):
        refuse_request(
            f"The body has {len(body) - offset} bytes after its JSON that belong to no input. Send their number as "
            f"{BINARY_SIZE} in the parameters of the input."
        )
    for output in _objects(request, "outputs"):
        requested = message.outputs.add(name=_text(output.get("name"), "The name of a requested output"))
        _add_parameters(requested, output, f"the requested output {requested.name!r}", skipped="")
    return message


def _length(text: str, size: int) -> int:
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:20]) <= size:
        refuse_request(
            f"The header {JSON_LENGTH_HEADER} must be the length of the JSON in bytes, at most that of the body, which "
            f"has {size} bytes."
        )
    return int(text)


def _parsed(text: bytes) -> Any:
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        pass  # Python's parser reads NaN and Infinity too, as Triton's does.
    else:
        parameters = parsed.get("parameters") if isinstance(parsed, dict) else None
        values = parameters.values() if isinstance(parameters, dict) else ()
        if not any(type(value) is float and abs(value) >= _UINT64[1] for value in values):
            return parsed  # orjson makes such floats of integers, too.
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        refuse_request(
            "The body is not JSON. If binary tensors follow the JSON, send its length in the header "
            f"{JSON_LENGTH_HEADER}."
        )


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        refuse_request(f"{what} must be a JSON object.")
    return value


def _objects(parent: dict[str, Any], name: str) -> list[dict[str, Any]]:
    values = parent.get(name)
    if values is None:
        return []
    if not isinstance(values, list):
        refuse_request(f"The {name} of the request must be an array of JSON objects.")
    return [_object(value, f"An element of the {name} of the request") for value in values]


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        refuse_request(f"{what} must be a text.")
    try:
        value.encode()
    except UnicodeEncodeError:
        refuse_request(f"{what} has half of a surrogate pair, which is not Unicode.")
    return value


def _add_parameters(message: Any, parent: dict[str, Any], what: str, *, skipped: str) -> dict[str, Any]:
    """Adds the parameters in JSON to those of a message, and returns them.

    Lists and objects become the texts of their JSON, as gRPC clients send them. A null is left out.
    """
    values = parent.get("parameters")
    if values is None:
        return {}
    parameters = _object(values, f"The parameters of {what}")
    for name, value in parameters.items():
        if name == skipped or value is None:
            continue
        parameter = message.parameters[_text(name, f"The name of a parameter of {what}")]
        match value:
            case bool():
                parameter.bool_param = value
            case int() if _INT64[0] <= value < _INT64[1]:
                parameter.int64_param = value
            case int() if _UINT64[0] <= value < _UINT64[1]:
                parameter.uint64_param = value
            case int():
                refuse_request(f"A parameter of {what} is an integer of more than 64 bits.")
            case float():
                parameter.double_param = value
            case str():
                parameter.string_param = _text(value, f"A parameter of {what}")
            case _:
                parameter.string_param = json.dumps(value)
    return parameters


def _add_input(message: Any, tensor: dict[str, Any], body: bytes, offset: int) -> int:
    """Adds an input to the message, and returns where the next binary tensor begins.

    Args:
        message: The ModelInferRequest.
        tensor: The input in JSON.
        body: The body.
        offset: Where the next binary tensor begins in it.

    """
    name = _text(tensor.get("name"), "The name of an input")
    datatype, shape = tensor.get("datatype"), tensor.get("shape")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        refuse_input(name, f"its datatype must be one of {', '.join(DATATYPES)}")
    if not isinstance(shape, list) or any(type(size) is not int or not 0 <= size < _INT64[1] for size in shape):
        refuse_input(name, "its shape must be an array of integers that are not negative")
    added = message.inputs.add(name=name, datatype=datatype, shape=shape)
    parameters = _add_parameters(added, tensor, f"the input {name!r}", skipped=BINARY_SIZE)
    if SHARED_MEMORY in parameters:
        raise Unsupported("This server has no shared memory. Send the data in the request.")
    size = parameters.get(BINARY_SIZE)
    if size is None:
        message.raw_input_contents.append(_raw(name, datatype, shape, tensor.get("data")))
        return offset
    if "data" in tensor:
        refuse_input(name, f"it has data and {BINARY_SIZE}; send one of the two")
    if type(size) is not int or not 0 <= size <= len(body) - offset:
        refuse_input(
            name,
            f"its {BINARY_SIZE} must be a number of bytes, at most those that follow the JSON and the inputs before "
            f"it: {len(body) - offset}. The header {JSON_LENGTH_HEADER} says where the JSON ends",
        )
    message.raw_input_contents.append(body[offset : offset + size])
    return offset + size


def _raw(name: str, datatype_name: str, shape: list[int], data: Any) -> bytes:
    """Returns the data of an input in the form of raw contents."""
    values = _flat(name, data)
    if len(values) != prod(shape):
        refuse_input(name, f"its data has {len(values)} elements, and its shape needs {prod(shape)}")
    datatype = DATATYPES[datatype_name]
    types = set(map(type, values))
    if datatype_name == BYTES:
        if not types <= {str}:
            refuse_input(name, "its data must be texts; send other values as their JSON, with the content_type pd_json")
        try:
            return raw_byte_strings([value.encode() for value in values])
        except UnicodeEncodeError:
            refuse_input(name, "its data has a text with half of a surrogate pair, which is not Unicode")
    if datatype_name == BF16 or not types <= _ELEMENTS[datatype.dtype.kind]:
        _refuse_elements(name, datatype_name)
    if datatype.dtype.kind in "iu" and values:
        limits: Any = np.iinfo(datatype.dtype.name)
        if min(values) < limits.min or max(values) > limits.max:
            _refuse_elements(name, datatype_name)
    try:
        with np.errstate(over="ignore"):
            array = np.array(values, dtype=datatype.dtype)
    except OverflowError:  # An integer beyond all floats.
        _refuse_elements(name, datatype_name)
    if datatype_name in _NARROW and not np.array_equal(np.isinf(array), np.isinf(np.array(values, dtype=float))):
        _refuse_elements(name, datatype_name)  # A finite number is infinite in fewer bits.
    return array.tobytes()


def _refuse_elements(name: str, datatype: str) -> NoReturn:
    if datatype == BF16:
        refuse_input(name, f"{datatype} has no form in JSON; send {BINARY_SIZE} and the bytes")
    refuse_input(name, f"its data has an element that is no {datatype}")


def _flat(name: str, data: Any) -> list[Any]:
    """Returns the elements of data in row-major order; the data may be nested or flat."""
    if not isinstance(data, list):
        refuse_input(name, f"it needs an array of data, or {BINARY_SIZE} in its parameters")
    values: list[Any] = data
    dimensions = 1
    while values and isinstance(values[0], list):
        dimensions += 1
        if dimensions > MAX_DIMENSIONS:
            refuse_input(name, f"its data has more than {MAX_DIMENSIONS} dimensions")
        if not all(isinstance(item, list) for item in values):
            refuse_input(name, "its data has elements beside arrays")
        values = list(chain.from_iterable(values))
    return values
