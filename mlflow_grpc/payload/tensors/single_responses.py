"""Responses with one number, which differ from an earlier one in nothing but the number and the id.

Rule of this module: a response is repeated only if its tensor is the prediction as it is, in the declared datatype.
Whether a tensor is cast otherwise depends on its value.
"""

from typing import Any

from google.protobuf.message import Message

from mlflow_grpc.payload.tensors.datatypes import DATATYPES
from mlflow_grpc.payload.tensors.output_values import OutputTensor
from mlflow_grpc.payload.tensors.outputs import ModelOutputs
from mlflow_grpc.payload.tensors.repeated import RepeatedRequest

MAX_RESPONSES = 8
"""Maximum number of responses that are remembered for a model."""


class SingleResponses:
    """The responses of one model to requests of a known form, by the type and shape of the prediction."""

    def __init__(self, response_class: type[Message], outputs: ModelOutputs) -> None:
        self._response_class: Any = response_class
        self._outputs = outputs
        self._known: dict[Any, Any] = {}

    def response(self, prediction: Any, message: RepeatedRequest) -> Message | None:
        """Returns the response for an array with one number; None if there was none of its form before."""
        known = self._known.get((prediction.dtype, prediction.shape, message.form))
        if known is None:
            return None
        response = self._response_class()
        response.CopyFrom(known)
        if message.id:
            response.id = message.id
        response.raw_output_contents.append(prediction.tobytes())
        made: Message = response
        return made

    def remember(
        self, prediction: Any, message: RepeatedRequest, tensors: list[OutputTensor], response: Message
    ) -> None:
        """Remembers a response, if the next one may differ in the number only.

        Args:
            prediction: The array with the number.
            message: The request.
            tensors: The tensors that were made of it.
            response: The response.

        """
        if len(tensors) != 1 or tensors[0].elements is not prediction:
            return
        declared = self._outputs.datatype_of(tensors[0].name)
        if declared in ("", tensors[0].datatype) and prediction.dtype == DATATYPES[tensors[0].datatype].dtype:
            known = self._response_class()
            known.CopyFrom(response)
            known.ClearField("id")
            known.ClearField("raw_output_contents")
            if len(self._known) >= MAX_RESPONSES:
                del self._known[next(iter(self._known))]
            self._known[prediction.dtype, prediction.shape, message.form] = known
