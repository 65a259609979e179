"""Requests whose tensors are all columns of one datatype, in the order of the model.

They are most requests to models of numbers, and many have one row. Reading their tensors together takes a fraction of
the time of reading them one by one.

Rule of this module: it returns None at the first sign of anything else, and refuses nothing.
"""

from typing import Any

import numpy as np

from mlflow_grpc.payload.tensors.datatypes import DATATYPES
from mlflow_grpc.payload.tensors.repeated import RepeatedRequest, RequestReader, RowForm
from mlflow_grpc.payload.tensors.table import TensorColumn

_JOINED = ("INT32", "INT64", "FP32", "FP64")
"""Datatypes of columns whose elements need no check."""


class UniformColumns:
    """Reader for a model whose columns all have one datatype."""

    def __init__(self, columns: tuple[TensorColumn, ...], reader: RequestReader | None = None) -> None:
        """Takes the columns of the model.

        Args:
            columns: The columns.
            reader: Parses the requests, and remembers the form of those that are read here; None if nothing does.

        """
        datatypes = {column.datatype for column in columns}
        self._names = [column.name for column in columns]
        self._datatype = datatypes.pop() if len(datatypes) == 1 else ""
        self._applies = self._datatype in _JOINED and not any(column.is_tensor for column in columns)
        self._reader = reader
        self._form: RowForm | None = None
        """The form of the last request of one row, which the next one mostly repeats."""

    def read(self, message: Any) -> Any:
        """Returns an array for each column, or an array of them; None if the request is not of this form.

        Args:
            message: A ModelInferRequest or RepeatedRequest without params.

        """
        if not self._applies:
            return None
        if type(message) is RepeatedRequest:
            form = message.form
            if form is not self._form:
                if form.names != self._names or form.datatype != self._datatype:
                    return None
                self._form = form
            return message.values()[:, np.newaxis]
        raw = list(message.raw_input_contents)
        if len(raw) != len(self._names):
            return None
        dtype = DATATYPES[self._datatype].dtype
        rows = len(raw[0]) // dtype.itemsize
        size = rows * dtype.itemsize
        if not rows or any(len(data) != size for data in raw) or not self._describe(message.inputs, rows):
            return None
        if rows == 1 and self._reader is not None:
            self._form = self._reader.remember(message, self._names, self._datatype)
        return np.frombuffer(b"".join(raw), dtype).reshape(len(raw), rows)

    def _describe(self, inputs: Any, rows: int) -> bool:
        """Returns True if inputs are the columns of the model, with a number of rows and nothing else."""
        return len(inputs) == len(self._names) and all(
            tensor.name == name
            and tensor.datatype == self._datatype
            and tensor.shape in ([rows, 1], [rows])
            and not tensor.parameters
            and not tensor.HasField("contents")
            for name, tensor in zip(self._names, inputs, strict=True)
        )
