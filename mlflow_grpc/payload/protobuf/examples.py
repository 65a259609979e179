"""Conversion of a model's input example, which is a payload of text, into messages of the model's own types.

Rule of this module: the messages hold the values of the example's first row. An example without such a row is an error.
"""

import base64
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from _mlflow_grpc_protocol.scalars import FLOATS
from _mlflow_grpc_protocol.shapes import FieldShape, ScalarShape

from mlflow_grpc.contract.shapes import BatchShape, ModelMessages
from mlflow_grpc.contract.types import AnyValue, Contract, DataType, ListOf, MapOf, Record, Scalar, Tensor, Type, row_of
from mlflow_grpc.payload.codec import ModelInput
from mlflow_grpc.payload.protobuf.values import is_nothing
from mlflow_grpc.payload.protobuf.writer import extend, fill, write_field

_TABLES = ("dataframe_split", "dataframe_records", "inputs", "instances")


def first_row(payload: str, contract: Contract, *, times: int = 1) -> str:
    """Reduces a payload to its first row, repeated `times` times.

    Raises:
        ValueError: The payload is not JSON.

    """
    content = json.loads(payload)
    if not isinstance(content, dict) or any(tensor == row_of(tensor) for tensor in _tensors(contract)):
        return payload
    return json.dumps({key: _repeat_first(value, times) if key in _TABLES else value for key, value in content.items()})


def _repeat_first(table: Any, times: int) -> Any:
    if isinstance(table, list):
        return table[:1] * times
    if not isinstance(table, dict):
        return table
    is_column = {key: isinstance(value, list) and key != "columns" for key, value in table.items()}
    return {key: value[:1] * times if is_column[key] else value for key, value in table.items()}


def _input_types(contract: Contract) -> list[Type | None]:
    inputs = contract.inputs
    return [field.type for field in inputs.fields] if isinstance(inputs, Record) else [inputs]


def _tensors(contract: Contract) -> Iterator[Tensor]:
    return (type_ for type_ in _input_types(contract) if isinstance(type_, Tensor))


class Example:
    """First row of a model's parsed example."""

    def __init__(self, decoded: ModelInput, contract: Contract, messages: ModelMessages) -> None:
        """Makes a record from the first row.

        Args:
            decoded: The payload as the model's codec decodes it.
            contract: Input and output types of the model.
            messages: Shapes of the model's messages.

        Raises:
            ValueError: The payload cannot be read as a record, or its first row has no values.

        """
        self._messages = messages
        self._params = decoded.params or {}
        # A model with type hints gets the row as JSON has it, where bytes are base64.
        bytes_of = base64.b64decode if isinstance(decoded.data, list) else str.encode
        self._record = {
            field.label: _as_message_value(value, type_, bytes_of)
            for field, type_, value in zip(
                messages.input.fields, _input_types(contract), _row(decoded.data, contract), strict=True
            )
            if not (is_nothing(value) or _is_missing(value, field))
        }
        if not self._record:
            raise ValueError("its first row has no values")

    def fill_record(self, message: Any) -> None:
        """Writes the row into the message of one record.

        Raises:
            UnserializableOutput: The row does not fit into the message.
            TypeError: Likewise.
            ValueError: Likewise.

        """
        fill(message, self._messages.input, self._record, "")
        self._fill_params(message)

    def fill_rows(self, message: Any, batch: BatchShape, times: int) -> None:
        """Writes the row `times` times into the message of rows; raises what `fill_record` raises."""
        for field in batch.inputs.fields:
            name = field.label
            if name not in self._record:
                continue
            if field.is_singular:
                write_field(message, field, np.stack([np.asarray(self._record[name])] * times), name)
            else:
                extend(getattr(message, field.name), field.shape, [self._record[name]] * times, name)
        self._fill_params(message)

    def _fill_params(self, message: Any) -> None:
        if self._messages.params is not None and self._params:
            names = {field.model_name for field in self._messages.params.fields}
            params = {name: value for name, value in self._params.items() if name in names}
            fill(getattr(message, self._messages.params_field), self._messages.params, params, "params")


def _row(data: Any, contract: Contract) -> list[Any]:
    """Returns the values of the first row, in the order of the model's inputs; None for a missing value."""
    inputs = contract.inputs
    if not isinstance(inputs, Record):
        return [_first_of_tensor(data, inputs)]
    names = [field.name for field in inputs.fields]
    if isinstance(data, pd.DataFrame) and len(data):
        columns = {str(label): data.iloc[0, index] for index, label in enumerate(data.columns)}
        return [columns.get(name) for name in names] if any(names) else list(columns.values())[: len(names)]
    if isinstance(data, dict) and any(names):
        return [_first_of_tensor(data.get(field.name), field.type) for field in inputs.fields]
    if isinstance(data, list | np.ndarray) and len(data) and len(names) == 1:
        return [data[0]]
    raise ValueError(f"a value of type {type(data).__name__} is not a record")


def _as_message_value(value: Any, type_: Type | None, bytes_of: Callable[[str], bytes]) -> Any:
    """Converts a value for a message: arrays that MLflow made from lists to lists, and JSON text of binary to bytes."""
    if isinstance(value, np.ndarray) and not isinstance(type_, Tensor):
        value = value.tolist()
    if isinstance(type_, Scalar) and type_.data_type is DataType.BINARY and isinstance(value, str):
        return bytes_of(value)
    if isinstance(type_, ListOf) and isinstance(value, list):
        return [_as_message_value(item, type_.items, bytes_of) for item in value]
    if isinstance(type_, MapOf) and isinstance(value, dict):
        return {key: _as_message_value(item, type_.values, bytes_of) for key, item in value.items()}
    if isinstance(type_, Record) and isinstance(value, dict):
        types = {field.name: field.type for field in type_.fields}
        return {key: _as_message_value(item, types.get(key, AnyValue()), bytes_of) for key, item in value.items()}
    return value


def _first_of_tensor(value: Any, type_: Any) -> Any:
    """Returns the first row of a tensor that has rows, and any other value unchanged."""
    has_rows = isinstance(type_, Tensor) and type_ != row_of(type_)
    return value[0] if has_rows and value is not None else value


def _is_missing(value: Any, field: FieldShape) -> bool:
    """Returns True for NaN in a field that is not a float, because pandas uses NaN for a missing value there."""
    is_float = isinstance(field.shape, ScalarShape) and field.shape.type in FLOATS
    return not is_float and isinstance(value, float) and math.isnan(value)
