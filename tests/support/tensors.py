"""Calls of the Open Inference Protocol, with the server's own messages and without a client library."""

import json
import struct
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np

from mlflow_grpc import protos
from mlflow_grpc.payload.tensors.datatypes import DATATYPES
from mlflow_grpc.services import open_inference

NAME = open_inference.NAME


def message(message_type: str, **fields: Any) -> Any:
    """Makes a message of the protocol."""
    return protos.message_named(f"inference.{message_type}")(**fields)


def raw_of(datatype: str, values: Sequence[Any]) -> bytes:
    """Writes elements as the protocol has them on the wire."""
    if datatype == "BYTES":
        elements = [value.encode() if isinstance(value, str) else value for value in values]
        return b"".join(struct.pack("<I", len(element)) + element for element in elements)
    return np.array(values, dtype=DATATYPES[datatype].dtype).tobytes()


def parameter(value: Any) -> dict[str, Any]:
    """Returns the fields of an InferParameter, as tritonclient chooses them."""
    names = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    return {names[type(value)]: value}


def request(
    model: str,
    *inputs: tuple[str, str, Sequence[Any]],
    shapes: dict[str, list[int]] | None = None,
    content_types: dict[str, str] | None = None,
    outputs: Sequence[str] = (),
    is_raw: bool = True,
    **parameters: Any,
) -> Any:
    """Makes a ModelInferRequest.

    Args:
        model: Name of the model.
        inputs: For each input its name, datatype and elements.
        shapes: Shapes by the names of inputs; [rows, 1] by default.
        content_types: Content types by the names of inputs.
        outputs: Names of requested outputs.
        is_raw: True for raw_input_contents.
        parameters: Parameters of the request.
    """
    made = message("ModelInferRequest", model_name=model, outputs=[{"name": name} for name in outputs])
    for name, value in parameters.items():
        made.parameters[name].MergeFrom(message("InferParameter", **parameter(value)))
    for name, datatype, values in inputs:
        tensor = made.inputs.add(name=name, datatype=datatype, shape=(shapes or {}).get(name, [len(values), 1]))
        if name in (content_types or {}):
            tensor.parameters["content_type"].string_param = (content_types or {})[name]
        if is_raw:
            made.raw_input_contents.append(raw_of(datatype, values))
            continue
        tensor.contents.SetInParent()
        elements = [value.encode() if isinstance(value, str) else value for value in values]
        getattr(tensor.contents, DATATYPES[datatype].contents).extend(elements)
    return made


def arrays(response: Any) -> dict[str, Any]:
    """Returns the outputs of a response by name: arrays in their shapes, with bytes for BYTES."""
    decoded = {}
    for index, output in enumerate(response.outputs):
        datatype = DATATYPES[output.datatype]
        if not response.raw_output_contents:
            elements: Any = np.array(getattr(output.contents, datatype.contents), dtype=datatype.dtype)
        elif output.datatype == "BYTES":
            elements = np.array(_byte_strings(response.raw_output_contents[index]), dtype=object)
        else:
            elements = np.frombuffer(response.raw_output_contents[index], dtype=datatype.dtype)
        decoded[output.name] = elements.reshape(tuple(output.shape))
    return decoded


def content_type(response: Any, index: int = 0) -> str:
    """Returns the content type of an output."""
    text: str = response.outputs[index].parameters["content_type"].string_param
    return text


def values(response: Any) -> dict[str, list[Any]]:
    """Returns the outputs of a response by name, as the values that JSON has."""
    read: dict[str, list[Any]] = {}
    for index, (name, array) in enumerate(arrays(response).items()):
        flat = array.ravel().tolist()
        match content_type(response, index):
            case "pd_json":
                read[name] = [json.loads(element) for element in flat]
            case "str" | "datetime":
                read[name] = [element.decode() for element in flat]
            case _:
                read[name] = flat
    return read


def _byte_strings(raw: bytes) -> list[bytes]:
    elements, offset = [], 0
    while offset < len(raw):
        (length,) = struct.unpack_from("<I", raw, offset)
        elements.append(raw[offset + 4 : offset + 4 + length])
        offset += 4 + length
    return elements


class TensorCaller:
    """Caller of the protocol's methods on one channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def call(self, name: str, sent: Any, **options: Any) -> Any:
        """Returns the answer of a unary method; raises grpc.RpcError."""
        method = protos.service(NAME).methods_by_name[name]
        rpc: Any = self._channel.unary_unary(f"/{NAME}/{name}")
        data = rpc(sent.SerializeToString(), timeout=30, **options)
        return protos.message_class(method.output_type).FromString(data)

    def infer(self, sent: Any, **options: Any) -> Any:
        """Returns the ModelInferResponse to a request."""
        return self.call("ModelInfer", sent, **options)

    def stream(self, messages: Sequence[Any], **options: Any) -> list[Any]:
        """Returns the ModelStreamInferResponses to a stream of requests, which may be bytes."""
        rpc: Any = self._channel.stream_stream(f"/{NAME}/ModelStreamInfer")
        data = (sent if isinstance(sent, bytes) else sent.SerializeToString() for sent in messages)
        response = protos.message_named("inference.ModelStreamInferResponse")
        return [response.FromString(answer) for answer in rpc(data, timeout=30, **options)]

    def outcome(self, sent: Any) -> tuple[str, Any]:
        """Returns the status, and the response or the message of the error."""
        try:
            return "OK", self.infer(sent)
        except grpc.RpcError as error:
            return error.code().name, error.details()
