"""The inputs of one model: which tensor of a request is which column, and what the model gets.

Rule of this module: the forms are those of `RecordCodec`. A model that declares no inputs gets what the content type of
the request says.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_grpc.contract.types import Contract
from mlflow_grpc.errors import FieldViolation, InvalidPayload
from mlflow_grpc.payload.codec import ModelInput, Records
from mlflow_grpc.payload.tensors import columns
from mlflow_grpc.payload.tensors.datatypes import BYTES
from mlflow_grpc.payload.tensors.reader import InputTensor
from mlflow_grpc.payload.tensors.refusals import refuse_input, refuse_request
from mlflow_grpc.payload.tensors.table import DICT, NUMPY, PANDAS, STR, TensorColumn, inputs_of

if TYPE_CHECKING:
    from mlflow_grpc.payload.fast_json.fast_decoder import FastDecoder, RowBlock

MAX_NAMES = 20
"""Maximum number of names in a refusal."""


@dataclass(frozen=True, slots=True)
class MatchedInputs:
    """The tensors of a request by the columns of the model."""

    pairs: list[tuple[TensorColumn, InputTensor]]
    """Columns that the request has, in the order of the model."""
    unknown: tuple[str, ...]
    """Names of the tensors that belong to no column."""

    @property
    def rows(self) -> int:
        """Number of rows of the first tensor; 0 without tensors."""
        return self.pairs[0][1].rows if self.pairs else 0


class ModelInputs:
    """The declared inputs of one model."""

    def __init__(self, contract: Contract) -> None:
        self.columns = inputs_of(contract)
        self.are_tensors = bool(self.columns) and all(column.is_tensor for column in self.columns)
        self._is_array = self.are_tensors and self.columns[0].is_unnamed
        self._names = [column.name for column in self.columns]
        self._by_name = {column.name: column for column in self.columns}
        self._are_unnamed = all(column.is_unnamed for column in self.columns)

    def match(self, tensors: list[InputTensor], content_type: str) -> MatchedInputs:
        """Matches tensors with columns by their names, or by their order if the model has no names.

        Args:
            tensors: The inputs of a request.
            content_type: Content type of the request. With `np` and `str`, the first tensor is the only input of a
                model that takes one.

        Raises:
            InvalidPayload: A required input is missing, or the tensors have different numbers of rows.

        """
        if [tensor.name for tensor in tensors] == self._names:
            if not self.are_tensors:
                _check_rows(tensors)
            return MatchedInputs(list(zip(self.columns, tensors, strict=True)), ())
        return self._match_names(tensors, content_type)

    def _match_names(self, tensors: list[InputTensor], content_type: str) -> MatchedInputs:
        """Matches tensors that are not in the order of the model, or not exactly its inputs."""
        first_is_only = len(self.columns) == 1 and content_type in (NUMPY, STR)
        if self._are_unnamed and (first_is_only or not any(tensor.name in self._by_name for tensor in tensors)):
            pairs = list(zip(self.columns, tensors, strict=False))
            unknown = tuple(tensor.name for tensor in tensors[len(pairs) :])
        else:
            by_name = {tensor.name: tensor for tensor in tensors}
            pairs = [(column, by_name[column.name]) for column in self.columns if column.name in by_name]
            unknown = tuple(name for name in by_name if name not in self._by_name)
        if len(pairs) < len(self.columns):
            self._check_required({column.name for column, _ in pairs})
        if not self.are_tensors:
            _check_rows([tensor for _, tensor in pairs])
        return MatchedInputs(pairs, unknown)

    def _check_required(self, present: set[str]) -> None:
        missing = [column.name for column in self.columns if column.required and column.name not in present]
        if missing:
            more = f" and {len(missing) - MAX_NAMES} more" if len(missing) > MAX_NAMES else ""
            names = ", ".join(missing[:MAX_NAMES])
            raise InvalidPayload(
                f"The request lacks inputs of the model: {names}{more}. ModelMetadata lists all of them.",
                reason="INVALID_PARAMETER_VALUE",
                violations=tuple(FieldViolation(name, "it is missing") for name in missing[:MAX_NAMES]),
            )

    def fast_path_rows(self, matched: MatchedInputs, decoder: "FastDecoder") -> "RowBlock | None":
        """Returns the rows for the fast path; None if MLflow's parser has to make them."""
        if len(matched.pairs) != len(self.columns) or matched.unknown or not matched.rows:
            return None
        native = columns.native_array if self._is_array else columns.native_column
        read = [native(tensor, column) for column, tensor in matched.pairs]
        return None if any(column is None for column in read) else decoder.columns(read)

    def native_input(self, matched: MatchedInputs) -> ModelInput | None:
        """Returns an array, or arrays by name, in the model's own types; None if MLflow's parser has to convert them.

        MLflow's parser would return the same arrays, and its checks follow in either case.
        """
        if not self.are_tensors or len(matched.pairs) != len(self.columns):
            return None
        arrays = {column.name: columns.native_array(tensor, column) for column, tensor in matched.pairs}
        if any(array is None or not array.size for array in arrays.values()):
            return None  # JSON cannot express the shape of an array without elements.
        copies = {name: np.array(array) for name, array in arrays.items()}  # A model may write into its input.
        return ModelInput(next(iter(copies.values())) if self._is_array else copies)

    def native_columns(self, matched: MatchedInputs) -> dict[str, Any] | None:
        """Returns columns for `RecordCodec.decode_columns`; None if one of them has to be decoded as a record."""
        if self.are_tensors or self._are_unnamed or not matched.rows:
            return None
        read = {column.name: columns.native_column(tensor, column) for column, tensor in matched.pairs}
        return None if any(column is None for column in read.values()) else read

    def row_count(self, message: Any) -> int:
        """Returns the number of rows of a request that has been read before."""
        for tensor in message.inputs:
            if tensor.name in self._by_name or self._are_unnamed:
                return tensor.shape[0] if tensor.shape else 1
        return 0

    def records(self, matched: MatchedInputs) -> Records:
        """Returns the rows as records with the values that JSON would have.

        Raises:
            InvalidPayload: There is no input of the model, or an element has not the form of its content type.

        """
        if not matched.pairs and self.columns:
            names = ", ".join(column.name for column in self.columns[:MAX_NAMES])
            refuse_request(f"The request has no input of the model. Send at least one of {names}.")
        for column, tensor in matched.pairs:
            if self.are_tensors and column.shape and not tensor.shape:
                refuse_input(tensor.name, f"its shape is [], and the model takes {list(column.shape)}")
        read = columns.elements if self.are_tensors else columns.values
        return Records({column.name: read(tensor, column) for column, tensor in matched.pairs}, matched.rows)


def undeclared_input(tensors: list[InputTensor], content_type: str) -> Any:
    """Returns the input of a model that declares none.

    Args:
        tensors: The inputs of a request.
        content_type: Content type of the request: `pd` for a frame with a column for each tensor, `np` or `str` for the
            first tensor as an array, `dict` for arrays by name. By default, the only tensor is an array, and several
            are arrays by name.

    Raises:
        InvalidPayload: There are no tensors, or an element has not the form of its content type.

    """
    if not tensors:
        refuse_request("The request has no inputs. Send at least one.")
    if content_type == PANDAS:
        import pandas as pd  # Late, because the server starts to answer before pandas is imported.

        _check_rows(tensors)
        return pd.DataFrame({tensor.name: columns.undeclared(tensor, is_column=True) for tensor in tensors})
    if content_type != DICT and (content_type or len(tensors) == 1):
        if content_type not in ("", NUMPY) and tensors[0].datatype == BYTES and not tensors[0].content_type:
            tensors[0].content_type = content_type
        return columns.undeclared(tensors[0], is_column=False)
    return {tensor.name: columns.undeclared(tensor, is_column=False) for tensor in tensors}


def _check_rows(tensors: list[InputTensor]) -> None:
    shapes = {tensor.shape[:1] for tensor in tensors}
    if len(shapes) <= 1:
        return
    first = tensors[0].rows
    for tensor in tensors:
        if tensor.rows != first:
            refuse_input(tensor.name, f"it has {tensor.rows} rows and another input has {first}; send equal numbers")
