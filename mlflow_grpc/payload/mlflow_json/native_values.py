"""Values for MLflow's parser where it takes none that JSON has: numbers of 32 bits and points in time within others.

Rule of this module: only what MLflow refuses in every form of JSON is handed to it as a value of numpy's or Python's.
Its checks see it, and what they make of it is what the model gets.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import Model
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array, Map, Object

from mlflow_grpc.hosting.pyfunc import internals, type_hints
from mlflow_grpc.payload.codec import ModelInput

Read = Callable[[Any], Any]


def _moment(text: str) -> np.datetime64:
    return pd.Timestamp(text).to_datetime64()


_NATIVE: dict[DataType, tuple[Read, Any]] = {
    DataType.integer: (np.int32, 1),
    DataType.float: (np.float32, 0.5),
    DataType.datetime: (_moment, "2020-01-01T00:00:00"),
}
"""What makes a value that MLflow takes, and a value of JSON's for it."""


class NativeValues:
    """Reads payloads of one model's records."""

    def __init__(self, metadata: Model, item_hint: Any) -> None:
        """Args:
        metadata: The model's.
        item_hint: The type of one item of the input, if MLflow validates by a type hint.
        """
        self._of_item = type_hints.reader(item_hint) if item_hint is not None else None
        schema = metadata.get_input_schema()
        is_hinted = internals.is_signature_from_type_hint(metadata)
        specs = [] if schema is None or schema.is_tensor_spec() or is_hinted else list(schema)
        self._refused = {kind for kind in _NATIVE if _has_within(specs, kind) and _is_refused(metadata, kind)}
        self._names = [spec.name for spec in specs]
        self._columns = [self._reader(spec.type, within=False) for spec in specs]
        self._by_name = {spec.name: read for spec, read in zip(specs, self._columns, strict=True)}
        has_moments = DataType.datetime in self._refused
        self._moments = [
            place for place, spec in enumerate(specs) if has_moments and _has_within([spec], DataType.datetime)
        ]

    def payload(self, text: str) -> Any:
        """What MLflow's parser is to be given for a payload: itself, or its values."""
        if self._of_item is None and not any(self._columns):
            return text.encode()
        payload = json.loads(text)
        if self._of_item is not None:
            payload["inputs"] = [None if item is None else self._of_item(item) for item in payload["inputs"]]
        elif "dataframe_records" in payload:
            payload["dataframe_records"] = [
                {name: _read(self._by_name.get(name), value) for name, value in record.items()}
                for record in payload["dataframe_records"]
            ]
        else:
            split = payload["dataframe_split"]
            readers = [self._by_name.get(name) for name in split["columns"]] if "columns" in split else self._columns
            split["data"] = [
                [_read(read, value) for read, value in zip(readers, row, strict=True)] for row in split["data"]
            ]
        return payload

    def restored(self, parsed: ModelInput) -> ModelInput:
        """What was parsed, with points in time within others as MLflow's second check takes them.

        The first makes pandas' of numpy's, and the second takes no more of them than of texts.
        """
        table = parsed.data
        for place in self._moments:
            name = self._names[place]
            if name is None or name in table.columns:
                column = table.columns[place] if name is None else name
                table[column] = table[column].map(_with_numpys)
        return parsed

    def _reader(self, kind: Any, *, within: bool = True) -> Read | None:
        """What makes values of a type that MLflow takes; None if it takes JSON's."""
        if isinstance(kind, DataType):
            return _NATIVE[kind][0] if within and kind in self._refused else None
        if isinstance(kind, Array):
            of_item = self._reader(kind.dtype)
            return None if of_item is None else _of_list(of_item, is_deepest=isinstance(kind.dtype, DataType))
        if isinstance(kind, Object):
            fields = {each.name: read for each in kind.properties if (read := self._reader(each.dtype)) is not None}
            return _of_object(fields) if fields else None
        if isinstance(kind, Map):
            of_value = self._reader(kind.value_type)
            return None if of_value is None else _of_map(of_value)
        return None


def restore(data: Any) -> None:
    """Does for all columns of a table what `NativeValues.restored` does for those that have points in time."""
    if isinstance(data, pd.DataFrame):
        for column in data.select_dtypes(include="object").columns:
            data[column] = data[column].map(_with_numpys)


def _read(read: Read | None, value: Any) -> Any:
    return value if read is None or value is None else read(value)


def _with_numpys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_numpys(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_numpys(item) for item in value]
    return value.to_datetime64() if isinstance(value, pd.Timestamp) else value


def _of_list(of_item: Read, *, is_deepest: bool) -> Read:
    # MLflow makes a list of an array's values again, and that has numbers in place of points in time.
    def read(value: Any) -> Any:
        items = [_read(of_item, item) for item in value]
        return np.array(items) if is_deepest and items else items

    return read


def _of_object(fields: dict[str, Read]) -> Read:
    return lambda value: {name: _read(fields.get(name), item) for name, item in value.items()}


def _of_map(of_value: Read) -> Read:
    return lambda value: {key: _read(of_value, item) for key, item in value.items()}


def _has_within(specs: list[ColSpec], kind: DataType) -> bool:
    """Whether a type stands in a list, an object or a map of a column."""
    return any(not isinstance(spec.type, DataType) and _holds(spec.type, kind) for spec in specs)


def _holds(outer: Any, kind: DataType) -> bool:
    if isinstance(outer, Object):
        return any(_holds(each.dtype, kind) for each in outer.properties)
    if isinstance(outer, Array | Map):
        return _holds(outer.value_type if isinstance(outer, Map) else outer.dtype, kind)
    return bool(outer == kind)


def _is_refused(metadata: Model, kind: DataType) -> bool:
    """Whether MLflow refuses JSON's values of a type in maps; that depends on the version of pandas."""
    schema, payload = Schema([ColSpec(Map(kind), "x")]), {"dataframe_records": [{"x": {"k": _NATIVE[kind][1]}}]}
    try:
        internals.enforce_schema(internals.parse_json(payload, metadata, schema).data, schema, None)
    except Exception:  # noqa: BLE001 - whatever is raised, the server's caller gets an error
        return True
    return False
