"""Native Python and numpy values for MLflow's parser, for types that it refuses in every JSON form.

Examples are 32-bit numbers and points in time within lists, objects and maps.

Rule of this module: only a value that MLflow refuses in every JSON form is converted to a native one. MLflow's checks
see the native value, and the model gets the result of these checks.
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
"""For each type a function that converts a JSON value to one that MLflow accepts, and an example of a JSON value."""


class NativeValues:
    """Converter for the payloads of one model's records."""

    def __init__(self, metadata: Model, item_hint: Any) -> None:
        """Finds the types that need native values by trying them with MLflow.

        Args:
            metadata: The model's metadata.
            item_hint: Type of one item of the input, if MLflow validates by a type hint.

        """
        self._read_item = type_hints.reader(item_hint) if item_hint is not None else None
        schema = metadata.get_input_schema()
        is_hinted = internals.is_signature_from_type_hint(metadata)
        specs = [] if schema is None or schema.is_tensor_spec() or is_hinted else list(schema)
        self._refused = {
            data_type for data_type in _NATIVE if _has_within(specs, data_type) and _is_refused(metadata, data_type)
        }
        self._names = [spec.name for spec in specs]
        self._columns = [self._reader(spec.type, within=False) for spec in specs]
        self._by_name = {spec.name: read for spec, read in zip(specs, self._columns, strict=True)}
        has_moments = DataType.datetime in self._refused
        self._moments = [
            index for index, spec in enumerate(specs) if has_moments and _has_within([spec], DataType.datetime)
        ]

    def payload(self, text: str) -> Any:
        """Returns the input for MLflow's parser: the payload's bytes, or its parsed values if it needs native ones."""
        if self._read_item is None and not any(self._columns):
            return text.encode()
        payload = json.loads(text)
        if self._read_item is not None:
            payload["inputs"] = [None if item is None else self._read_item(item) for item in payload["inputs"]]
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
        """Returns the parsed input with nested points in time as numpy values again.

        MLflow's first check converts numpy values to pandas values, which its second check refuses.
        """
        table = parsed.data
        for index in self._moments:
            name = self._names[index]
            if name is None or name in table.columns:
                column = table.columns[index] if name is None else name
                table[column] = table[column].map(_numpy_moments)
        return parsed

    def _reader(self, schema_type: Any, *, within: bool = True) -> Read | None:
        """Returns a function that makes values of a type that MLflow accepts; None if it accepts the JSON values."""
        if isinstance(schema_type, DataType):
            return _NATIVE[schema_type][0] if within and schema_type in self._refused else None
        if isinstance(schema_type, Array):
            read_item = self._reader(schema_type.dtype)
            is_deepest = isinstance(schema_type.dtype, DataType)
            return None if read_item is None else _list_reader(read_item, is_deepest=is_deepest)
        if isinstance(schema_type, Object):
            readers = {prop.name: self._reader(prop.dtype) for prop in schema_type.properties}
            fields = {name: read for name, read in readers.items() if read is not None}
            return _object_reader(fields) if fields else None
        if isinstance(schema_type, Map):
            read_value = self._reader(schema_type.value_type)
            return None if read_value is None else _map_reader(read_value)
        return None


def restore(data: Any) -> None:
    """Converts nested points in time to numpy values in all columns of a table, as `NativeValues.restored` does."""
    if isinstance(data, pd.DataFrame):
        for column in data.select_dtypes(include="object").columns:
            data[column] = data[column].map(_numpy_moments)


def _read(read: Read | None, value: Any) -> Any:
    return value if read is None or value is None else read(value)


def _numpy_moments(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numpy_moments(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numpy_moments(item) for item in value]
    return value.to_datetime64() if isinstance(value, pd.Timestamp) else value


def _list_reader(read_item: Read, *, is_deepest: bool) -> Read:
    # MLflow converts a nested array to a list, in which points in time are numbers: only the deepest is an array.
    def read(value: Any) -> Any:
        items = [_read(read_item, item) for item in value]
        # MLflow accepts nulls alone in JSON, so they are not converted.
        return np.array(items) if is_deepest and any(item is not None for item in items) else items

    return read


def _object_reader(fields: dict[str, Read]) -> Read:
    return lambda value: {name: _read(fields.get(name), item) for name, item in value.items()}


def _map_reader(read_value: Read) -> Read:
    return lambda value: {key: _read(read_value, item) for key, item in value.items()}


def _has_within(specs: list[ColSpec], data_type: DataType) -> bool:
    """Returns True if a list, an object or a map of a column holds a type."""
    return any(not isinstance(spec.type, DataType) and _holds(spec.type, data_type) for spec in specs)


def _holds(schema_type: Any, data_type: DataType) -> bool:
    if isinstance(schema_type, Object):
        return any(_holds(prop.dtype, data_type) for prop in schema_type.properties)
    if isinstance(schema_type, Array | Map):
        return _holds(schema_type.value_type if isinstance(schema_type, Map) else schema_type.dtype, data_type)
    return bool(schema_type == data_type)


def _is_refused(metadata: Model, data_type: DataType) -> bool:
    """Returns True if MLflow refuses the JSON values of a type in maps, which depends on the version of pandas."""
    schema = Schema([ColSpec(Map(data_type), "x")])
    payload = {"dataframe_records": [{"x": {"k": _NATIVE[data_type][1]}}]}
    try:
        internals.enforce_schema(internals.parse_json(payload, metadata, schema).data, schema, None)
    except Exception:  # noqa: BLE001 - MLflow's server answers every exception with an error
        return True
    return False
