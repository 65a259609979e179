"""Predictions of one model as output tensors.

Rule of this module: it decides which values belong to which output. `output_values` makes the tensors.
"""

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pydantic_core

from mlflow_grpc.contract.types import Contract
from mlflow_grpc.errors import UnserializableOutput
from mlflow_grpc.payload.codec import PLAIN_INPUT, RecordCodec
from mlflow_grpc.payload.tensors.datatypes import BYTES, OF_DTYPE
from mlflow_grpc.payload.tensors.output_values import OutputTensor, column_tensor, number_tensor, utf8, value_tensor
from mlflow_grpc.payload.tensors.table import JSON, STR, outputs_of

ONLY = "output-0"
"""Name of the only output of a model that declares none."""


class ModelOutputs:
    """The outputs of one model."""

    def __init__(self, contract: Contract, codec: RecordCodec) -> None:
        """Takes the declared outputs.

        Args:
            contract: Types of the model.
            codec: Reads the rows of predictions that are neither arrays nor tables of numbers.

        """
        self._columns = outputs_of(contract)
        self._codec = codec
        self._by_name = {column.name: column for column in self._columns}
        self._are_unnamed = all(column.is_unnamed for column in self._columns)
        self.names: frozenset[str] = frozenset(self._by_name)
        """Names of the declared outputs; empty if the model declares none."""

    def datatype_of(self, name: str) -> str:
        """Returns the declared datatype of an output; empty if the model does not declare it."""
        return self._by_name[name].datatype if name in self._by_name else ""

    def tensors(self, predictions: Any, count: int) -> list[OutputTensor]:
        """Returns the tensors for what a model returned, if `array_tensors` returns none.

        Args:
            predictions: The return value of the model.
            count: Number of input rows.

        Raises:
            UnserializableOutput: The predictions have no form in JSON either.

        """
        if not self._columns:
            return self._undeclared(predictions)
        try:
            rows = self._rows(predictions, count)
        except UnserializableOutput:
            return [self._as_json(predictions)]
        return self._of_rows(rows) or [self._as_json(predictions)]

    def _rows(self, predictions: Any, count: int) -> list[Any]:
        """Returns the predicted rows; those of an MLModel package as their JSON, with bytes as they are."""
        rows = self._codec.rows(predictions, count)
        if not self._codec.timestamps_have_timezone:
            return rows
        try:
            texts = json.loads(self._codec.encode(predictions, PLAIN_INPUT))["predictions"]
        except UnserializableOutput:  # Bytes that are not UTF-8 have no JSON, and a tensor holds them.
            return [_json_but_bytes(row) for row in rows]
        return [
            {name: row[name] if isinstance(row.get(name), bytes) else value for name, value in text.items()}
            if isinstance(text, dict) and isinstance(row, dict)
            else (row if isinstance(row, bytes) else text)
            for row, text in zip(rows, texts, strict=True)
        ]

    def array_tensors(self, predictions: Any) -> list[OutputTensor] | None:
        """Returns the tensors of arrays and of tables with columns of numbers; None for all other predictions.

        Arrays of texts are included if there is one output.
        """
        if type(predictions) is np.ndarray:
            return self._of_array(predictions)
        if isinstance(predictions, dict) and predictions and all(column.is_tensor for column in self._columns):
            arrays = {str(name): value for name, value in predictions.items()}
            if not all(type(value) is np.ndarray and value.dtype in OF_DTYPE for value in arrays.values()):
                return None
            return [number_tensor(name, value, self._by_name.get(name)) for name, value in arrays.items()]
        return self._of_table(predictions) if _is_table(predictions) else None

    def _of_array(self, array: npt.NDArray[Any]) -> list[OutputTensor] | None:
        if array.dtype not in OF_DTYPE:
            return self._of_texts(array) if array.dtype.kind in "OU" and len(self._columns) <= 1 else None
        if len(self._columns) <= 1:
            column = self._columns[0] if self._columns else None
            if column is not None and not column.is_tensor and array.ndim != 1 and array.shape[1:] != (1,):
                return None
            return [number_tensor(column.name if column is not None else ONLY, array, column)]
        if array.ndim != 2 or array.shape[1] != len(self._columns) or any(c.is_tensor for c in self._columns):  # noqa: PLR2004
            return None
        return [number_tensor(column.name, array[:, index], column) for index, column in enumerate(self._columns)]

    def _of_texts(self, array: npt.NDArray[Any]) -> list[OutputTensor] | None:
        """Returns the tensor of the only output for an array that has nothing but texts; None for another array."""
        column = self._columns[0] if self._columns else None
        is_column = column is not None and not column.is_tensor
        if not array.ndim or (column is not None and column.content_type != STR) or (is_column and array.ndim > 1):
            return None
        texts = array.ravel().tolist()
        if set(map(type, texts)) != {str}:
            return None
        shape = (len(texts), 1) if is_column else array.shape
        name = column.name if column is not None else ONLY
        try:
            return [OutputTensor(name, BYTES, shape, [utf8(text) for text in texts], STR)]
        except UnserializableOutput:
            return None

    def _of_table(self, table: Any) -> list[OutputTensor] | None:
        """Returns a tensor for each column of a pandas DataFrame whose columns are numbers."""
        labels = [str(label) for label in table.columns]
        if len(set(labels)) < len(labels) or not all(isinstance(dtype, np.dtype) for dtype in table.dtypes):
            return None  # Other types of pandas may have nulls, which their arrays do not.
        arrays = [table.iloc[:, index].to_numpy() for index in range(len(labels))]
        if not all(type(array) is np.ndarray and array.dtype in OF_DTYPE for array in arrays):
            return None
        is_counted = len(labels) == len(self._columns) and list(table.columns) == list(range(len(labels)))
        if self._columns and len(labels) == len(self._columns) and (self._are_unnamed or is_counted):
            labels = [column.name for column in self._columns]
        elif self._columns and not set(labels) <= self.names:
            return None
        return [
            number_tensor(label, array, self._by_name.get(label), is_column=True)
            for label, array in zip(labels, arrays, strict=True)
        ]

    def _undeclared(self, predictions: Any) -> list[OutputTensor]:
        """Returns the tensors of a model that declares no outputs."""
        if _is_table(predictions) and predictions.columns.is_unique:
            return [
                value_tensor(str(label), predictions[label].to_list(), None, is_column=True)
                for label in predictions.columns
            ]
        is_series = isinstance(getattr(predictions, "dtype", None), np.dtype) and hasattr(predictions, "to_numpy")
        values = predictions.to_list() if is_series else predictions
        if type(values) is np.ndarray and values.ndim:
            flat = value_tensor(ONLY, values.ravel().tolist(), None)
            return [OutputTensor(ONLY, flat.datatype, values.shape, flat.elements, flat.content_type)]
        if isinstance(values, list) and values and not any(isinstance(value, dict | list | tuple) for value in values):
            return [value_tensor(ONLY, values, None)]
        return [self._as_json(predictions)]

    def _of_rows(self, rows: list[Any]) -> list[OutputTensor] | None:
        """Returns a tensor for each output from rows: dictionaries, lists or bare values."""
        if len(self._columns) == 1:
            (column,) = self._columns
            name = column.name
            if not column.is_unnamed and all(isinstance(row, dict) and row.keys() == {name} for row in rows):
                rows = [row[name] for row in rows]
            return [column_tensor(column, rows)]
        if all(isinstance(row, list | tuple | np.ndarray) and len(row) == len(self._columns) for row in rows):
            return [column_tensor(column, [row[index] for row in rows]) for index, column in enumerate(self._columns)]
        if not all(isinstance(row, dict) and row.keys() <= self.names for row in rows):
            return None
        present = [column for column in self._columns if any(column.name in row for row in rows)]
        return [column_tensor(column, [row.get(column.name) for row in rows]) for column in present]

    def _as_json(self, predictions: Any) -> OutputTensor:
        """Returns one element with the predictions as JSON has them."""
        text = self._codec.encode(predictions, PLAIN_INPUT)
        bare = text[text.index(":") + 1 : -1].strip()  # Without {"predictions": ...} around it.
        name = self._columns[0].name if len(self._columns) == 1 else ONLY
        return OutputTensor(name, BYTES, (1, 1), [bare.encode()], JSON)


def _json_but_bytes(value: Any) -> Any:
    """Returns a Python value as pydantic writes it in JSON, except that bytes stay bytes.

    Raises:
        UnserializableOutput: A value has no JSON form.

    """
    if isinstance(value, dict):
        return {key if isinstance(key, str) else _json_but_bytes(key): _json_but_bytes(value[key]) for key in value}
    if isinstance(value, list | tuple | set | frozenset):
        return [_json_but_bytes(item) for item in value]
    if isinstance(value, bytes):
        return value
    try:
        return pydantic_core.to_jsonable_python(value)
    except (pydantic_core.PydanticSerializationError, ValueError) as error:
        raise UnserializableOutput("The model returned a value that has no JSON form.") from error


def _is_table(predictions: Any) -> bool:
    """Returns True for a pandas DataFrame; recognized by its attributes, so that pandas need not be imported."""
    return hasattr(predictions, "iloc") and hasattr(predictions, "columns")
