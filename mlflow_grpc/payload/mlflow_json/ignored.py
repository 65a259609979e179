"""Columns and params of a payload that the signature of an MLflow model does not have, and that MLflow ignores.

Rule of this module: it only names them, and does not change the payload.
Source: `mlflow.models.utils._enforce_schema` and `_enforce_params_schema`, which log a warning about them.
"""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import Model

from mlflow_grpc.choices import UnknownColumns
from mlflow_grpc.hosting.pyfunc import internals, type_hints
from mlflow_grpc.payload.unknown_names import PARAMS, Unknown


class IgnoredNames:
    """Finds the names in payloads that the signature of one MLflow model does not have."""

    def __init__(
        self, metadata: Model, item_hint: Any, treatment: UnknownColumns, *, judges_columns: bool = True
    ) -> None:
        """Collects the names in the signature.

        Args:
            metadata: The model's metadata.
            item_hint: Type of one item of the input, if MLflow validates by a type hint.
            treatment: Treatment of columns and params that the signature does not have.
            judges_columns: False if only params are looked at.

        """
        schema, params = metadata.get_input_schema(), metadata.get_params_schema()
        self._judges_columns = judges_columns
        self._is_hinted = internals.is_signature_from_type_hint(metadata)
        self._hint = item_hint if self._is_hinted else None
        is_named = schema is not None and schema.has_input_names() and not self._is_hinted
        self._names = frozenset(schema.input_names()) if is_named else frozenset()
        self._is_one_needed = is_named and any(spec.required for spec in schema)
        is_counted = schema is not None and not is_named and not schema.is_tensor_spec() and not self._is_hinted
        self._width = len(schema.inputs) if is_counted else 0
        self._params = frozenset() if params is None else frozenset(spec.name for spec in params.params)
        declared = [*map(str, schema.input_names() if is_named else ()), *(f"{PARAMS}{name}" for name in self._params)]
        declared += type_hints.keys(self._hint)
        self.unknown = Unknown(declared, treatment, hides_declared=internals.hides_schema_details)

    def names(self, data: Any, params: Any) -> tuple[str, ...]:
        """Returns the ignored names in a payload that is parsed but not enforced yet.

        Raises:
            InvalidPayload: The server refuses unknown names.

        """
        names = [str(name) for name in self._data_names(data)] if self._judges_columns else []
        if params:
            param_names = params if isinstance(params, dict) else ()
            names += [f"{PARAMS}{name}" for name in param_names if name not in self._params]
        return self.unknown.check(names, is_refused_anyway=self._lacks_all_columns(data)) if names else ()

    def _lacks_all_columns(self, data: Any) -> bool:
        """Returns True if MLflow refuses a payload for its columns, because it has none of the model's."""
        if not self._judges_columns or not self._is_one_needed:
            return False
        labels = _labels(data)
        return not isinstance(labels, range) and self._names.isdisjoint(labels)

    def _data_names(self, data: Any) -> Iterable[Any]:
        if self._hint is not None:
            return _item_keys(self._hint, data)
        if self._names:
            return _without(_labels(data), self._names)
        if self._width:
            return [str(label) for label in list(_labels(data))[self._width :]]
        return ()


def _item_keys(hint: Any, data: Any) -> Iterable[str]:
    return (key for item in data for key in type_hints.ignored_keys(hint, item)) if isinstance(data, list) else ()


def _labels(data: Any) -> Collection[Any]:
    """Returns the names that MLflow uses for the columns, or their numbers where they have no names."""
    if isinstance(data, pd.DataFrame):
        return data.columns
    if isinstance(data, dict):
        return data
    if isinstance(data, np.ndarray):
        return range(data.shape[1]) if data.ndim == 2 else ()  # noqa: PLR2004 - a table
    if not isinstance(data, list):
        return ()
    if data and all(isinstance(row, dict) for row in data):
        return dict.fromkeys(name for row in data for name in row)
    return range(max((len(row) for row in data if isinstance(row, list)), default=0))


def _without(labels: Collection[Any], names: Collection[Any]) -> Iterable[Any]:
    # An array has no names: it is the only column of the signature, or MLflow refuses it.
    return () if isinstance(labels, range) else [label for label in labels if label not in names]
