"""The example of a model, which is a payload of text, as messages of the model's own types.

Rule of this module: it says what the example says, of its first row, or that it cannot.
"""

import base64
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from mlflow_grpc.contract.shapes import BatchShape, FieldShape, ModelMessages, ScalarShape
from mlflow_grpc.contract.types import AnyValue, Contract, DataType, ListOf, MapOf, Record, Scalar, Tensor, Type, row_of
from mlflow_grpc.payload.codec import ModelInput
from mlflow_grpc.payload.protobuf.values import is_nothing
from mlflow_grpc.payload.protobuf.writer import extend, fill, put

_TABLES = ("dataframe_split", "dataframe_records", "inputs", "instances")


def first_row(payload: str, contract: Contract, *, times: int = 1) -> str:
    """The payload with the first of its rows alone, once or several times.

    Raises:
        ValueError: It is not JSON.

    """
    content = json.loads(payload)
    if not isinstance(content, dict) or any(tensor == row_of(tensor) for tensor in _tensors(contract)):
        return payload
    return json.dumps({key: _first(value, times) if key in _TABLES else value for key, value in content.items()})


def _first(table: Any, times: int) -> Any:
    if isinstance(table, list):
        return table[:1] * times
    if not isinstance(table, dict):
        return table
    is_column = {key: isinstance(each, list) and key != "columns" for key, each in table.items()}
    return {key: each[:1] * times if is_column[key] else each for key, each in table.items()}


def _tensors(contract: Contract) -> Iterator[Tensor]:
    inputs = contract.inputs
    kinds = [each.type for each in inputs.fields] if isinstance(inputs, Record) else [inputs]
    return (kind for kind in kinds if isinstance(kind, Tensor))


class Example:
    """One row of a model's example, once it has been parsed."""

    def __init__(self, decoded: ModelInput, contract: Contract, messages: ModelMessages) -> None:
        """Args:
        decoded: What the model's codec makes of the payload.
        contract: What the model takes and gives.
        messages: Its messages.

        Raises:
            ValueError: It is nothing that a record can be made of, or a record without values.

        """
        self._messages = messages
        self._params = decoded.params or {}
        # A model with type hints is given the row as it is in JSON.
        bytes_of = base64.b64decode if isinstance(decoded.data, list) else str.encode
        self._record = {
            field.source.name or field.name: _as_said(value, field.source.type, bytes_of)
            for field, value in zip(messages.input.fields, _row(decoded.data, contract), strict=True)
            if not (is_nothing(value) or _is_missing(value, field))
        }
        if not self._record:
            raise ValueError("its first row has no values")

    def fill_record(self, message: Any) -> None:
        """Writes it into the message of one record.

        Raises:
            UnwritableAnswer: The message cannot say it.
            TypeError: Likewise, and ValueError.

        """
        fill(message, self._messages.input, self._record, "")
        self._fill_params(message)

    def fill_rows(self, message: Any, batch: BatchShape, times: int) -> None:
        """Writes it several times into the message of rows; raises what `fill_record` raises."""
        for column in batch.inputs.columns:
            field, name = column.field, column.field.source.name or column.field.name
            if name not in self._record:
                continue
            if field.is_singular:
                put(message, field, np.stack([np.asarray(self._record[name])] * times), name)
            else:
                extend(getattr(message, field.name), field.shape, [self._record[name]] * times, name)
        self._fill_params(message)

    def _fill_params(self, message: Any) -> None:
        if self._messages.params is not None and self._params:
            names = {field.source.name for field in self._messages.params.fields}
            params = {name: value for name, value in self._params.items() if name in names}
            fill(getattr(message, self._messages.params_field), self._messages.params, params, "params")


def _row(data: Any, contract: Contract) -> list[Any]:
    """The values of the first row, in the order of the model's inputs; None for those that are not there."""
    inputs = contract.inputs
    if not isinstance(inputs, Record):
        return [_of_tensor(data, inputs)]
    names = [each.name for each in inputs.fields]
    if isinstance(data, pd.DataFrame) and len(data):
        columns = {str(label): data.iloc[0, place] for place, label in enumerate(data.columns)}
        return [columns.get(name) for name in names] if any(names) else list(columns.values())[: len(names)]
    if isinstance(data, dict) and any(names):
        return [_of_tensor(data.get(each.name), each.type) for each in inputs.fields]
    if isinstance(data, list | np.ndarray) and len(data) and len(names) == 1:
        return [data[0]]
    raise ValueError(f"a value of type {type(data).__name__} is no record")


def _as_said(value: Any, kind: Type, bytes_of: Callable[[str], bytes]) -> Any:
    """A value as messages take it: lists for arrays, which MLflow makes of lists, and bytes where JSON has a text."""
    if isinstance(value, np.ndarray) and not isinstance(kind, Tensor):
        value = value.tolist()
    if isinstance(kind, Scalar) and kind.data_type is DataType.BINARY and isinstance(value, str):
        return bytes_of(value)
    if isinstance(kind, ListOf) and isinstance(value, list):
        return [_as_said(item, kind.items, bytes_of) for item in value]
    if isinstance(kind, MapOf) and isinstance(value, dict):
        return {key: _as_said(item, kind.values, bytes_of) for key, item in value.items()}
    if isinstance(kind, Record) and isinstance(value, dict):
        types = {field.name: field.type for field in kind.fields}
        return {key: _as_said(item, types.get(key, AnyValue()), bytes_of) for key, item in value.items()}
    return value


def _of_tensor(value: Any, kind: Any) -> Any:
    """A row of a tensor that has rows; any other value itself."""
    has_rows = isinstance(kind, Tensor) and kind != row_of(kind)
    return value[0] if has_rows and value is not None else value


def _is_missing(value: Any, field: FieldShape) -> bool:
    """Whether a value is NaN where that is no number, but what pandas has for none."""
    is_float = isinstance(field.shape, ScalarShape) and field.shape.type in (Proto.TYPE_DOUBLE, Proto.TYPE_FLOAT)
    return not is_float and isinstance(value, float) and math.isnan(value)
