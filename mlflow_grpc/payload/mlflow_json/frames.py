"""Rows of the pandas tables that an MLflow model returns.

Rule of this module: NaN becomes None except in a column of floats, because pandas has no other missing value.
"""

from typing import Any

import numpy as np
import pandas as pd
from mlflow.types import DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType, Map, Object

from mlflow_grpc.payload.mlflow_json.answer_forms import is_wrapped
from mlflow_grpc.payload.protobuf.values import key_text

_WITH_NAN = (DataType.float, DataType.double)


class Frames:
    """Reader of the tables that one model returns."""

    def __init__(self, schema: Schema | None) -> None:
        """Chooses how rows are read by the output schema.

        Args:
            schema: The model's output schema; None if it has none.

        """
        specs = [] if schema is None or schema.is_tensor_spec() else list(schema)
        self._lacks_nan = {str(spec.name) for spec in specs if _lacks_nan(spec.type)}
        only = specs[0] if len(specs) == 1 else None
        self._only_lacks_nan = only is not None and _lacks_nan(only.type)
        self._is_any = schema is None or (
            only is not None and only.name in (None, "") and isinstance(only.type, AnyType)
        )
        self._names = [str(spec.name) for spec in specs if spec.name not in (None, "")]
        self._is_nameless = len(specs) > 1 and not self._names
        self._width = len(specs)
        self._scalars = {str(spec.name): spec.type for spec in specs if spec.name and isinstance(spec.type, DataType)}
        is_wide = only is None or isinstance(only.type, Object | Map | AnyType)
        self._is_bare = only is not None and only.name in (None, "") and not is_wide
        self._nested = (
            only.type if only is not None and not self._names and isinstance(only.type, Map | Object) else None
        )
        # A bare value would be read as a row: a list as all outputs, a dictionary as outputs by their names.
        self._as_columns = frozenset(self._names) if is_wide else frozenset[str]()
        # A flavor such as pytorch returns a frame for a frame, even if it was logged with arrays.
        tensors = [] if schema is None else [spec for spec in schema if isinstance(spec, TensorSpec)]
        self._tensor = tensors[0] if len(tensors) == 1 else None

    def rows(self, table: pd.DataFrame | pd.Series) -> list[Any]:
        """Returns the rows of a table.

        A row of a frame is a dictionary, and a row of a Series is a bare value. There are exceptions:

        - A frame of one column has bare values if the only output has no name.
        - The cells of a row are the elements of a tensor if the output is a tensor.
        - Without an output schema, rows are those of MLflow's JSON.
        - Columns are matched by position if they have no labels (pandas numbers them) or the outputs have no names.
        - A Series with the name of an output is a frame of that column if a bare value would be read as a row.
        """
        if self._tensor is not None and not _has_column(table, self._tensor.name):
            return _elements(table, is_single=len(self._tensor.shape) == 1)
        if isinstance(table, pd.Series) and (self._is_any or table.name in self._as_columns):
            table = pd.DataFrame(table)
        if isinstance(table, pd.Series) or (table.shape[1] == 1 and (self._is_bare or self._has_values(table))):
            column = table if isinstance(table, pd.Series) else table.iloc[:, 0]
            return (_with_none(column) if self._only_lacks_nan else column).to_list()
        named = self._with_text_labels(table)
        if named.columns.is_unique:
            with_missing = [name for name in named if name in self._lacks_nan and named[name].hasnans]
            named = named.assign(**{name: _with_none(named[name]) for name in with_missing})
        rows = list(named.to_dict("records"))
        is_by_position = self._is_nameless and table.shape[1] == self._width and named.columns.is_unique
        return [list(row.values()) for row in rows] if is_by_position else rows

    def columns(self, table: pd.DataFrame) -> dict[str, Any] | None:
        """Returns the columns of a table with a column of scalars for each output; None for any other table.

        Numbers and booleans are arrays, and texts lists with None for a missing one. The values are those of `rows`.
        """
        if len(table.columns) != self._width or set(table.columns) != self._scalars.keys():
            return None
        columns: dict[str, Any] = {}
        for name, data_type in self._scalars.items():
            column = table[name]
            if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
                columns[name] = column.to_numpy()
            elif data_type == DataType.string and pd.api.types.infer_dtype(column) == "string":
                columns[name] = _with_none(column).to_list()
            else:
                return None
        return columns

    def _has_values(self, table: pd.DataFrame) -> bool:
        """Returns True if the only column of a table holds dictionaries for the only output, which has no name."""
        if self._nested is None:
            return False
        cells = table.iloc[:, 0].dropna().to_list()
        label = key_text(table.columns[0])
        return bool(cells) and all(is_wrapped({label: cell}, self._nested) for cell in cells)

    def _with_text_labels(self, table: pd.DataFrame) -> pd.DataFrame:
        """Returns the table with texts as column labels."""
        if all(isinstance(name, str) for name in table.columns):
            return table
        labels = [key_text(label) for label in table.columns]
        if self._has_counted_labels(table) and len(self._names) == self._width and set(labels) != set(self._names):
            labels = self._names
        return table.set_axis(labels, axis="columns")

    def _has_counted_labels(self, table: pd.DataFrame) -> bool:
        """Returns True if a table has as many columns as there are outputs, and only the labels 0, 1 and so on."""
        labels: list[Any] = list(table.columns)
        return labels == list(range(self._width)) and not any(isinstance(label, bool) for label in labels)


def _has_column(table: pd.DataFrame | pd.Series, name: str | None) -> bool:
    return isinstance(table, pd.DataFrame) and bool(name) and name in table.columns


def _elements(table: pd.DataFrame | pd.Series, *, is_single: bool) -> list[Any]:
    """Returns the rows of a tensor: single values, or lists or arrays of elements."""
    if isinstance(table, pd.Series) or table.shape[1] == 1:
        cells = (table if isinstance(table, pd.Series) else table.iloc[:, 0]).to_list()
        return [cell if is_single or isinstance(cell, list | tuple | np.ndarray) else [cell] for cell in cells]
    if table.dtypes.nunique() == 1:
        return list(table.to_numpy())
    return [list(row) for row in table.itertuples(index=False, name=None)]


def _lacks_nan(schema_type: Any) -> bool:
    return schema_type not in _WITH_NAN and not isinstance(schema_type, AnyType)


def _with_none(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.notna(), None) if column.hasnans else column
