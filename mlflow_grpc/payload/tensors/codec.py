"""Requests and responses of ModelInfer for one model.

Rule of this module: it combines the modules beside it, and decides which of the ways to the model's input is taken:
rows for the fast path, arrays and columns as they are, or records for MLflow's parser.
"""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import Message

from mlflow_grpc.contract.types import Contract
from mlflow_grpc.errors import InvalidPayload, Unsupported
from mlflow_grpc.payload.codec import Codec, ModelInput, RecordCodec, Records
from mlflow_grpc.payload.tensors import parameters
from mlflow_grpc.payload.tensors.inputs import MatchedInputs, ModelInputs, undeclared_input
from mlflow_grpc.payload.tensors.outputs import ModelOutputs
from mlflow_grpc.payload.tensors.reader import read_inputs
from mlflow_grpc.payload.tensors.repeated import RepeatedRequest, RequestReader, parsed
from mlflow_grpc.payload.tensors.single_responses import SingleResponses
from mlflow_grpc.payload.tensors.uniform import UniformColumns
from mlflow_grpc.payload.tensors.writer import check_requested, response_of
from mlflow_grpc.payload.unknown_names import PARAMS

if TYPE_CHECKING:
    from mlflow_grpc.payload.fast_json.fast_decoder import FastDecoder, RowBlock


class TensorCodec:
    """Converter of ModelInferRequest to model input, and of predictions to ModelInferResponse."""

    def __init__(
        self,
        codec: Codec,
        contract: Contract,
        response_class: type[Message],
        *,
        name: str,
        version: str,
        reader: RequestReader | None = None,
    ) -> None:
        """Prepares the conversions for a model.

        Args:
            codec: Codec of the model.
            contract: Types of its inputs, outputs and params.
            response_class: Class of ModelInferResponse.
            name: Name of the model in responses.
            version: Its version in responses; empty if it has none.
            reader: Parses the requests; None if nothing remembers their forms.

        Raises:
            Unsupported: The model takes plain text.

        """
        if not isinstance(codec, RecordCodec):
            raise Unsupported("This model takes plain text (--payload text), and no tensors. Call MLflow.predict.")
        self._codec: RecordCodec = codec
        self._params = contract.params
        self._takes_rows = contract.takes_rows
        self._inputs = ModelInputs(contract)
        self._uniform = UniformColumns(self._inputs.columns, reader)
        self._outputs = ModelOutputs(contract, codec)
        self._make_response = partial(response_class, model_name=name, model_version=version)
        self._single = SingleResponses(response_class, self._outputs)

    def fast_path_rows(self, message: Any, decoder: "FastDecoder") -> "RowBlock | None":
        """Reads the rows of a request without an object for a number; None if the fast path does not apply.

        Raises:
            InvalidPayload: The tensors or the requested outputs are invalid.

        """
        check_requested(message, self._outputs.names)
        if message.parameters:
            if self._param_values(message):
                return None
            parameters.content_type(message)  # Refuses an unknown one; others make no difference to uniform columns.
        if (columns := self._uniform.read(message)) is not None:
            return decoder.columns(columns)
        return self._inputs.fast_path_rows(self._matched(parsed(message)), decoder)

    def decode(self, message: Any) -> ModelInput:
        """Reads a request into model input.

        Raises:
            InvalidPayload: A tensor, a parameter or a requested output is invalid.
            InputRejected: The input does not fit the model; `explain` says why.

        """
        message = parsed(message)
        check_requested(message, self._outputs.names)
        params = self._param_values(message)
        if not self._inputs.columns:
            data = undeclared_input(read_inputs(message), parameters.content_type(message))
            return self._with_ignored(ModelInput(data, params), (), params)
        matched = self._matched(message)
        decoded = self._decoded(matched, params)
        return self._with_ignored(decoded, matched.unknown, params)

    def _decoded(self, matched: MatchedInputs, params: dict[str, Any] | None) -> ModelInput:
        if (native := self._inputs.native_input(matched)) is not None:
            return replace(native, params=params)
        if params is None and (columns := self._inputs.native_columns(matched)) is not None:
            decoded = self._codec.decode_columns(columns)
            if decoded is not None:
                return decoded
        records = self._inputs.records(matched)
        if self._takes_rows:
            return self._codec.decode_records(records, params)
        return self._codec.decode_record(_only_record(records), params)

    def explain(self, message: Any, cause: BaseException | None) -> InvalidPayload:
        """Makes the error for a request that `decode` or the model's own checks refused."""
        message = parsed(message)
        params = self._param_values(message)
        if not self._inputs.columns:
            return InvalidPayload(
                "MLflow refused the input. The model declares no inputs that the server knows, so set content_type of "
                "the request to what it takes: pd, np or dict.",
                reason="INVALID_PARAMETER_VALUE",
            )
        records = self._inputs.records(self._matched(message))
        if self._takes_rows:
            return self._codec.explain_records(records, params, cause)
        return self._codec.explain_record(_only_record(records), params, cause)

    def encode(self, predictions: Any, message: Any) -> Message:
        """Makes the response to a request.

        Raises:
            UnserializableOutput: The predictions have no form in JSON either.
            InvalidPayload: The request asks for an output that the model did not return.

        """
        is_single = type(predictions) is np.ndarray and predictions.size == 1 and type(message) is RepeatedRequest
        if is_single and (response := self._single.response(predictions, message)) is not None:
            return response
        tensors = self._outputs.array_tensors(predictions)
        if tensors is None:
            tensors = self._outputs.tensors(predictions, self._inputs.row_count(message))
        made = response_of(self._make_response(id=message.id), message, tensors)
        if is_single:
            self._single.remember(predictions, message, tensors, made)
        return made

    def _matched(self, message: Any) -> MatchedInputs:
        return self._inputs.match(read_inputs(message), parameters.content_type(message))

    def _param_values(self, message: Any) -> dict[str, Any] | None:
        return parameters.params_of(message, self._params) or None

    def _with_ignored(self, decoded: ModelInput, unknown: tuple[str, ...], params: dict[str, Any] | None) -> ModelInput:
        """Adds the inputs and params that the model does not have; raises InvalidPayload if the server refuses them."""
        declared = {field.name for field in self._params.fields} if self._params is not None else set()
        unknown_params = [f"{PARAMS}{name}" for name in params or () if name not in declared]
        if not unknown and not unknown_params:
            return decoded
        return replace(decoded, ignored=self._codec.unknown.check((*unknown, *unknown_params)))


def _only_record(records: Records) -> dict[str, Any]:
    """Returns the record for a model that takes one; raises InvalidPayload if there are several or none."""
    if records.count != 1:
        raise InvalidPayload(
            f"The model takes one row in a call, and the inputs have {records.count}. Send a request for each row.",
            reason="INVALID_PARAMETER_VALUE",
        )
    return {name: column[0] for name, column in records.columns.items()}
