"""Output tensors in a response, in the form of the request.

Rule of this module: outputs are raw if the inputs were, and in contents if the inputs were there.
"""

import base64
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from google.protobuf.message import Message

from mlflow_grpc.errors import Unsupported
from mlflow_grpc.payload.tensors.datatypes import BYTES, DATATYPES
from mlflow_grpc.payload.tensors.output_values import OutputTensor
from mlflow_grpc.payload.tensors.reader import CONTENT_TYPE, SHARED_MEMORY
from mlflow_grpc.payload.tensors.refusals import refuse_output
from mlflow_grpc.payload.tensors.repeated import RepeatedRequest
from mlflow_grpc.payload.tensors.table import BASE64

CLASSIFICATION = "classification"


def check_requested(message: Any, declared: AbstractSet[str]) -> None:
    """Checks the requested outputs before the model runs.

    Args:
        message: The ModelInferRequest.
        declared: Names of the outputs; empty if the model does not declare any.

    Raises:
        InvalidPayload: The model has no such output, or an output is requested twice.
        Unsupported: An output is requested in a form that the server does not have.

    """
    if not message.outputs:
        return
    names = set()
    for requested in message.outputs:
        name = requested.name
        if declared and name not in declared:
            refuse_output(name, f"the model has no such output; it has {', '.join(sorted(declared)[:20])}")
        if name in names:
            refuse_output(name, "it is requested twice")
        names.add(name)
        if SHARED_MEMORY in requested.parameters:
            raise Unsupported("This server has no shared memory. Leave the region out, and read the response.")
        if CLASSIFICATION in requested.parameters:
            raise Unsupported("This server does not rank classes. Leave classification out, and read the output.")


def response_of(response: Any, message: Any, tensors: list[OutputTensor]) -> Message:
    """Writes tensors into the response to a request, and returns it.

    Args:
        response: A ModelInferResponse without outputs.
        message: The ModelInferRequest or RepeatedRequest.
        tensors: The outputs of the model.

    Raises:
        InvalidPayload: A requested output is not among the tensors.

    """
    if message.outputs:
        tensors = _requested(message, tensors)
    has_contents = (
        type(message) is not RepeatedRequest
        and not message.raw_input_contents
        and any(tensor.HasField("contents") for tensor in message.inputs)
    )
    is_raw = not has_contents or any(not DATATYPES[tensor.datatype].contents for tensor in tensors)
    for tensor in tensors:
        output = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if tensor.content_type:
            output.parameters[CONTENT_TYPE].string_param = tensor.content_type
        if is_raw:
            response.raw_output_contents.append(_raw(tensor))
        else:
            elements = tensor.elements
            contents = elements if tensor.datatype == BYTES else elements.ravel().tolist()
            getattr(output.contents, DATATYPES[tensor.datatype].contents).extend(contents)
    made: Message = response
    return made


def _requested(message: Any, tensors: list[OutputTensor]) -> list[OutputTensor]:
    by_name = {tensor.name: tensor for tensor in tensors}
    chosen = []
    for requested in message.outputs:
        tensor = by_name.get(requested.name)
        if tensor is None:
            refuse_output(requested.name, f"the model returned {', '.join(list(by_name)[:20])}")
        has_type = CONTENT_TYPE in requested.parameters
        if has_type and requested.parameters[CONTENT_TYPE].string_param == BASE64 and tensor.datatype == BYTES:
            encoded = [base64.b64encode(element) for element in tensor.elements]
            tensor = OutputTensor(tensor.name, BYTES, tensor.shape, encoded, BASE64)
        chosen.append(tensor)
    return chosen


def _raw(tensor: OutputTensor) -> bytes:
    if tensor.datatype == BYTES:
        return raw_byte_strings(tensor.elements)
    raw: bytes = tensor.elements.astype(DATATYPES[tensor.datatype].dtype, copy=False).tobytes()  # In row-major order.
    return raw


def raw_byte_strings(elements: Sequence[bytes]) -> bytes:
    """Returns elements of BYTES as raw contents: each with its length before it."""
    return b"".join(part for element in elements for part in (len(element).to_bytes(4, "little"), element))
