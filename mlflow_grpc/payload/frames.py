"""Tables that a model of MLflow's returns, as rows.

Rule of this module: what pandas has NaN for want of another word is None. In a column of floats NaN is a number.
"""

from typing import Any

import pandas as pd
from mlflow.types import DataType, Schema
from mlflow.types.schema import AnyType, Map, Object

_WITH_NAN = (DataType.float, DataType.double)


class Frames:
    """Reads the tables of one model."""

    def __init__(self, schema: Schema | None) -> None:
        """Args:
        schema: Of the model's output; None if it says nothing.
        """
        specs = [] if schema is None or schema.is_tensor_spec() else list(schema)
        self._lacks_nan = {str(each.name) for each in specs if _lacks_nan(each.type)}
        only = specs[0] if len(specs) == 1 else None
        self._only_lacks_nan = only is not None and _lacks_nan(only.type)
        self._is_bare = (
            only is not None and only.name in (None, "") and not isinstance(only.type, Object | Map | AnyType)
        )

    def rows(self, table: pd.DataFrame | pd.Series) -> list[Any]:
        """A dictionary for each row of a frame; the bare values of a Series, and of a frame of one column where the
        output is one without a name.
        """
        if isinstance(table, pd.Series) or (self._is_bare and table.shape[1] == 1):
            column = table if isinstance(table, pd.Series) else table.iloc[:, 0]
            return (_with_none(column) if self._only_lacks_nan else column).to_list()
        named = table if all(isinstance(name, str) for name in table.columns) else table.rename(columns=str)
        if named.columns.is_unique:
            wanting = [name for name in named if name in self._lacks_nan and named[name].hasnans]
            named = named.assign(**{name: _with_none(named[name]) for name in wanting})
        return list(named.to_dict("records"))


def _lacks_nan(kind: Any) -> bool:
    return kind not in _WITH_NAN and not isinstance(kind, AnyType)


def _with_none(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.notna(), None) if column.hasnans else column
