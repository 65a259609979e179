"""Tables that a model of MLflow's returns, as rows.

Rule of this module: what pandas has NaN for want of another word is None. In a column of floats NaN is a number.
"""

from typing import Any

import pandas as pd
from mlflow.types import DataType, Schema
from mlflow.types.schema import AnyType, Map, Object

_FLOATS = (DataType.float, DataType.double)


class Frames:
    """Reads the tables of one model."""

    def __init__(self, schema: Schema | None) -> None:
        """Args:
        schema: Of the model's output; None if it says nothing.
        """
        specs = [] if schema is None or schema.is_tensor_spec() else list(schema)
        self._kinds = {str(spec.name): spec.type for spec in specs if spec.name not in (None, "")}
        self._only = specs[0].type if len(specs) == 1 and not self._kinds else None

    def rows(self, table: pd.DataFrame | pd.Series) -> list[Any]:
        """A dictionary for each row of a frame; the bare values of a Series, and of a frame of one column where the
        output is one without a name.
        """
        if isinstance(table, pd.Series):
            kinds = list(self._kinds.values())
            return _present(table, self._only or (kinds[0] if len(kinds) == 1 else None)).to_list()
        if self._only is not None and table.shape[1] == 1 and not isinstance(self._only, Object | Map | AnyType):
            return _present(table.iloc[:, 0], self._only).to_list()
        named = table if all(isinstance(name, str) for name in table.columns) else table.rename(columns=str)
        if named.columns.is_unique:
            wanting = [name for name in named if name in self._kinds and named[name].hasnans]
            named = named.assign(**{name: _present(named[name], self._kinds[name]) for name in wanting})
        return list(named.to_dict("records"))


def _present(column: pd.Series, kind: Any) -> pd.Series:
    """A column with None where there is no value; one of which the schema does not say what it is, as it is."""
    if kind is None or kind in _FLOATS or isinstance(kind, AnyType) or not column.hasnans:
        return column
    return column.astype(object).where(column.notna(), None)
