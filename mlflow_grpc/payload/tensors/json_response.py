"""Inference responses in JSON, with or without binary tensors after it, from the messages that gRPC clients get.

Source: https://github.com/kserve/open-inference-protocol, "Inference Response JSON Object", and Triton's
extension_binary_data.md.

Rule of this module: it changes the form of a response, and no value.
"""

import base64
import json
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import orjson

from mlflow_grpc.payload.tensors.datatypes import BYTES, DATATYPES
from mlflow_grpc.payload.tensors.json_request import BINARY_DATA, BINARY_OUTPUT, BINARY_SIZE
from mlflow_grpc.payload.tensors.reader import CONTENT_TYPE, split_byte_strings
from mlflow_grpc.payload.tensors.table import BASE64


@dataclass(frozen=True, slots=True)
class InferenceBody:
    """The body of a response."""

    content: bytes
    """JSON, and behind it the binary tensors in the order of the outputs."""
    json_length: int | None
    """Length of the JSON in bytes; None if there are no binary tensors."""


def write_response(response: Any, message: Any) -> InferenceBody:
    """Returns the body for a response.

    Args:
        response: A ModelInferResponse whose outputs are raw.
        message: The ModelInferRequest, which says what outputs are binary: `binary_data` of a requested output, or
            `binary_data_output` of the request.

    """
    are_binary = _is_set(message.parameters, BINARY_OUTPUT, default=False)
    requested = {output.name: _is_set(output.parameters, BINARY_DATA, default=are_binary) for output in message.outputs}
    outputs, binary, is_finite = [], [], True
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        written: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        content_type = output.parameters[CONTENT_TYPE].string_param if output.parameters else ""
        parameters: dict[str, Any] = {CONTENT_TYPE: content_type} if content_type else {}
        if requested.get(output.name, are_binary):
            parameters[BINARY_SIZE] = len(raw)
            binary.append(raw)
        elif output.datatype == BYTES:
            elements = split_byte_strings(output.name, raw, prod(output.shape))
            if not content_type:
                parameters[CONTENT_TYPE] = BASE64
                elements = list(map(base64.b64encode, elements))
            written["data"] = [element.decode() for element in elements]
        else:
            array = np.frombuffer(raw, DATATYPES[output.datatype].dtype)
            is_finite = is_finite and (array.dtype.kind != "f" or bool(np.isfinite(array).all()))
            written["data"] = array.tolist()
        if parameters:
            written["parameters"] = parameters
        outputs.append(written)
    body: dict[str, Any] = {"model_name": response.model_name}
    if response.model_version:
        body["model_version"] = response.model_version
    if response.id:
        body["id"] = response.id
    body["outputs"] = outputs
    # orjson would write null for NaN and Infinity, for which Python's encoder has the names that MLflow's answers have.
    text = orjson.dumps(body) if is_finite else json.dumps(body, separators=(",", ":")).encode()
    if not binary:
        return InferenceBody(text, None)
    return InferenceBody(b"".join((text, *binary)), len(text))


def _is_set(parameters: Any, name: str, *, default: bool) -> bool:
    return bool(parameters[name].bool_param) if name in parameters else default
