"""Columns and params of a payload that the signature of an MLflow model does not have, and that MLflow ignores.

Rule of this module: it names them; what MLflow makes of the others is not touched.
Source: `mlflow.models.utils._enforce_schema` and `_enforce_params_schema`, which warn of them in the server's log.
"""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import Model

from mlflow_grpc.choices import UnknownColumns
from mlflow_grpc.hosting.pyfunc import internals, type_hints
from mlflow_grpc.payload.unknown_names import PARAMS, Unknown


class OfSignature:
    """Finds them by the signature of one MLflow model."""

    def __init__(self, metadata: Model, item_hint: Any, treatment: UnknownColumns) -> None:
        """Args:
        metadata: The model's.
        item_hint: The type of one item of the input, if MLflow validates by a type hint.
        treatment: What becomes of them.
        """
        schema, params = metadata.get_input_schema(), metadata.get_params_schema()
        self._is_hinted = internals.is_signature_from_type_hint(metadata)
        self._hint = item_hint if self._is_hinted else None
        is_named = schema is not None and schema.has_input_names() and not self._is_hinted
        self._names = frozenset(schema.input_names()) if is_named else frozenset()
        is_counted = schema is not None and not is_named and not schema.is_tensor_spec() and not self._is_hinted
        self._width = len(schema.inputs) if is_counted else 0
        self._params = frozenset() if params is None else frozenset(spec.name for spec in params.params)
        known = [*map(str, schema.input_names() if is_named else ()), *(f"{PARAMS}{name}" for name in self._params)]
        known += type_hints.keys(self._hint)
        self.unknown = Unknown(known, treatment, hides_known=internals.hides_schema_details)

    def of(self, data: Any, params: Any) -> tuple[str, ...]:
        """What is ignored of a parsed payload, before MLflow enforces the schema; raises what `Unknown.told` raises."""
        names = [str(name) for name in self._of_data(data)]
        if params:
            given = params if isinstance(params, dict) else ()
            names += [f"{PARAMS}{name}" for name in given if name not in self._params]
        return self.unknown.told(names) if names else ()

    def _of_data(self, data: Any) -> Iterable[Any]:
        if self._hint is not None:
            return _of_items(self._hint, data)
        if self._names:
            return _without(_labels(data), self._names)
        if self._width:
            return [str(label) for label in list(_labels(data))[self._width :]]
        return ()


def _of_items(hint: Any, data: Any) -> Iterable[str]:
    return (key for item in data for key in type_hints.ignored_keys(hint, item)) if isinstance(data, list) else ()


def _labels(data: Any) -> Collection[Any]:
    """What MLflow will take for the names of columns, or for their numbers where they have no names."""
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
    # An array without names is the only column of a signature, or refused.
    return () if isinstance(labels, range) else [label for label in labels if label not in names]
