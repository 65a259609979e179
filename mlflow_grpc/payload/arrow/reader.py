"""Conversion of record batches to the input of one model.

Rule of this module: the rows get the answer that MLflow's parser gives for the same rows as JSON. Columns of numbers
reach the model as arrays if that changes nothing. All others go through MLflow's parser.
"""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mlflow_grpc.contract.types import Contract, Field, Scalar, Tensor
from mlflow_grpc.errors import InvalidPayload
from mlflow_grpc.payload.arrow import arrays, predicates, types, values
from mlflow_grpc.payload.arrow.incoming import TableRows
from mlflow_grpc.payload.arrow.refusals import check, columns_refused, listed, refused
from mlflow_grpc.payload.codec import Codec, ModelInput, RecordCodec, Records
from mlflow_grpc.payload.unknown_names import PARAMS

if TYPE_CHECKING:
    from mlflow_grpc.payload.fast_json.fast_decoder import FastDecoder, RowBlock

INPUT_NAME = "value"
"""Name of the only column of a model that does not name it."""

_JSON = "application/json"


class TableReader:
    """Reads the batches of one schema for one model."""

    def __init__(
        self,
        codec: Codec,
        contract: Contract,
        schema: pa.Schema,
        params: dict[str, Any] | None = None,
        *,
        as_records: bool = True,
    ) -> None:
        """Finds the column of the schema for each column of the model.

        Args:
            codec: The model's codec.
            contract: The model's columns.
            schema: The caller's schema.
            params: The params that the caller set.
            as_records: False if the codec has to see all columns as JSON, because a hook looks at them.

        Raises:
            InvalidPayload: A column has a type that the model or the server does not take, or two have one name.

        """
        self._codec = codec
        self._params = params or None
        self._names = schema.names
        self._records: RecordCodec | None = None
        self._fields: list[Field] = []
        self._indexes: dict[str, int] = {}
        self._is_spread = False
        """True if the columns are the elements of the rows of a tensor."""
        if (repeated := types.repeated(self._names)) is not None:
            raise columns_refused([repeated], "is the name of two columns; give them different names")
        if as_records and contract.inputs is not None and isinstance(codec, RecordCodec):
            self._records = codec
            self._fields = types.fields_of(contract.inputs, INPUT_NAME)
            self._match(contract, schema)
        else:
            check({column.name: types.unreadable(column.type) for column in schema})
        self._unknown = self._unknown_names(contract)
        self._is_scalar = bool(self._fields) and all(isinstance(column.type, Scalar) for column in self._fields)

    def _match(self, contract: Contract, schema: pa.Schema) -> None:
        names = [column.name for column in self._fields]
        root = contract.inputs
        is_named = not isinstance(root, Tensor) and root is not None and all(column.name for column in root.fields)
        if is_named:
            indexes = {name: index for index, name in enumerate(self._names)}
            self._indexes = {name: indexes[name] for name in names if name in indexes}
            missing = [
                column.name for column in self._fields if column.needs_value and column.name not in self._indexes
            ]
            if missing or (names and not self._indexes):
                missing = missing or names
                raise refused(
                    f"The table lacks columns of the model: {listed(missing)}.", dict.fromkeys(missing, "missing")
                )
        elif self._is_row_of(schema):
            self._is_spread = True
            return
        elif len(self._names) != len(names):
            raise refused(
                f"The model takes {len(names)} columns without names, in their order, and the table has "
                f"{len(self._names)}.",
                {},
            )
        else:
            self._indexes = {name: index for index, name in enumerate(names)}
        types_of = {column.name: column.type for column in self._fields}
        check({name: types.problem_of(types_of[name], schema.field(i).type) for name, i in self._indexes.items()})

    def _is_row_of(self, schema: pa.Schema) -> bool:
        """Returns True if the model takes a matrix, and the table has a column of numbers for each of its columns."""
        (column, *others) = self._fields
        if others or not isinstance(column.type, Tensor):
            return False
        shape = types.row_shape(column.type)
        if len(shape) != 1 or shape[0] not in (-1, len(schema)):
            return False
        return len(schema) > 0 and all(predicates.is_numeric(source.type) for source in schema)

    def _unknown_names(self, contract: Contract) -> tuple[str, ...]:
        """Returns the columns and params that the model does not have; raises InvalidPayload if they are refused."""
        if self._records is None:
            return ()
        known_params = {param.name for param in contract.params.fields} if contract.params is not None else set()
        matched = set(self._indexes.values())
        columns = [] if self._is_spread else [name for i, name in enumerate(self._names) if i not in matched]
        params = [f"{PARAMS}{name}" for name in self._params or () if name not in known_params]
        unknown = [*columns, *params]
        return self._records.unknown.check(unknown) if unknown else ()

    def fast_path_rows(self, rows: TableRows, decoder: "FastDecoder") -> "RowBlock | None":
        """Reads rows of scalars or of one tensor for the fast path; None if it does not apply.

        Raises:
            InvalidPayload: The batch is broken.

        """
        if self._records is None or self._params is not None or self._unknown or not rows.count:
            return None
        batch = rows.read()
        if self._is_spread or (len(self._fields) == 1 and isinstance(self._fields[0].type, Tensor)):
            array = self._tensor(batch, self._fields[0])
            return decoder.columns([array]) if array is not None and array.dtype.kind in "biuf" else None
        if not self._is_scalar or len(self._indexes) < len(self._fields):
            return None
        columns = []
        for column in self._fields:
            source = batch.column(self._indexes[column.name])
            array = self._array(column, source) if not source.null_count else None
            if array is None:
                return None
            columns.append(array)
        return decoder.columns(arrays.stacked(columns))

    def decode(self, rows: TableRows) -> ModelInput:
        """Reads rows into model input.

        Raises:
            InvalidPayload: The batch is broken, or a value is invalid for its type.
            InputRejected: A row does not fit; `explain` says why.

        """
        batch = rows.read()
        if self._records is None:
            return self._codec.decode(self._json(batch), _JSON)
        decoded = self._decoded_arrays(batch) if self._params is None and rows.count else None
        if decoded is None:
            decoded = self._records.decode_records(self._as_records(batch), self._params)
        return replace(decoded, ignored=self._unknown) if self._unknown else decoded

    def explain(self, rows: TableRows, cause: BaseException | None) -> InvalidPayload:
        """Makes the error for rows that `decode` or the model's own checks refused."""
        batch = rows.read()
        if self._records is None:
            return self._codec.explain(self._json(batch), _JSON, cause)
        return self._records.explain_records(self._as_records(batch), self._params, cause)

    def _decoded_arrays(self, batch: pa.RecordBatch) -> ModelInput | None:
        """Decodes columns of scalars as arrays; None if MLflow's parser has to see the values."""
        if not self._is_scalar or self._records is None:
            return None
        columns: dict[str, Any] = {}
        for column in self._fields:
            if (index := self._indexes.get(column.name)) is None:
                continue
            array = self._array(column, batch.column(index))
            if array is None:
                return None
            columns[column.name] = array
        return self._records.decode_columns(columns)

    @staticmethod
    def _array(column: Field, source: pa.Array) -> Any:
        if not isinstance(column.type, Scalar) or column.type.format:
            return None
        return arrays.column(source, column.type.data_type)

    def _as_records(self, batch: pa.RecordBatch) -> Records:
        columns: dict[str, Any] = {}
        with_zone = self._records is not None and self._records.timestamps_have_timezone
        for column in self._fields:
            index = self._indexes.get(column.name)
            if isinstance(column.type, Tensor) and (index is not None or self._is_spread):
                array = self._tensor(batch, column)
                if array is None:
                    raise self._no_tensor(batch, column)
                columns[column.name] = array
            elif index is not None:
                columns[column.name] = values.column_values(batch.column(index), column, with_zone=with_zone)
        return Records(columns, batch.num_rows)

    def _tensor(self, batch: pa.RecordBatch, column: Field) -> Any:
        if not isinstance(column.type, Tensor):
            return None
        if not self._is_spread:
            return arrays.tensor(batch.column(self._indexes[column.name]), types.row_shape(column.type))
        sources = [source.to_numpy(zero_copy_only=False) for source in batch.columns if not source.null_count]
        return np.column_stack(sources) if len(sources) == batch.num_columns else None

    def _no_tensor(self, batch: pa.RecordBatch, column: Field) -> InvalidPayload:
        """Makes the error for columns that are not the rows of a tensor."""
        if self._is_spread:
            names = [name for name, source in zip(self._names, batch.columns, strict=True) if source.null_count]
        else:
            names = [column.name]
        shape = list(types.row_shape(column.type)) if isinstance(column.type, Tensor) else []
        problem = "has null, and tensors have none: fill it or leave out the row"
        if shape and not self._is_spread:
            problem = f"has null, or lists whose lengths do not make up rows of the shape {shape}"
        return columns_refused(names, problem)

    def _json(self, batch: pa.RecordBatch) -> str:
        """Returns the JSON of a table that MLflow parses without the help of a signature."""
        columns = [values.plain_values(column) for column in batch.columns]
        rows: list[Any] = list(zip(*columns, strict=True)) if columns else [[]] * batch.num_rows
        payload: dict[str, Any] = {"dataframe_split": {"columns": batch.schema.names, "data": rows}}
        if self._params is not None:
            payload["params"] = self._params
        try:
            return json.dumps(payload)
        except TypeError:
            names = [column.name for column in batch.schema if predicates.contains(column.type, predicates.is_bytes)]
            problem = "has bytes, which have no JSON form without a signature; encode them as texts"
            raise columns_refused(names, problem) from None
