"""Bytes within lists, objects and maps, for MLflow's parser.

Rule of this module: MLflow decodes base64 only where a whole column is binary. Within lists, objects and maps it
encodes a text as ASCII, so bytes are passed on as that text, and refused if they are not ASCII.
"""

from typing import Any, NoReturn

from mlflow.types import DataType, Schema
from mlflow.types.schema import Array, Map, Object

from mlflow_grpc.errors import FieldViolation, InvalidPayload


class NestedBytes:
    """Converter of the nested bytes in one model's columns to texts."""

    def __init__(self, schema: Schema | None) -> None:
        """Finds the columns that hold nested bytes.

        Args:
            schema: Schema of the columns; None if MLflow decodes base64 at every depth of them.

        """
        specs = [] if schema is None or schema.is_tensor_spec() else list(schema)
        self._by_index = [spec.type != DataType.binary and _has_bytes(spec.type) for spec in specs]
        self._by_name = {str(spec.name): has_bytes for spec, has_bytes in zip(specs, self._by_index, strict=True)}

    def as_texts(self, columns: dict[str, Any]) -> dict[str, Any]:
        """Returns the columns of one record with texts in place of nested bytes.

        Raises:
            InvalidPayload: MLflow cannot make the bytes of any text.

        """
        if not any(self._by_index):
            return columns
        return {
            name: _as_texts(value, name) if self._by_name.get(name, self._by_index[index]) else value
            for index, (name, value) in enumerate(columns.items())
        }

    def rows_as_texts(self, columns: dict[str, Any]) -> dict[str, Any]:
        """Returns the columns of several records with texts in place of nested bytes.

        Raises:
            InvalidPayload: MLflow cannot make the bytes of any text.

        """
        if not any(self._by_index):
            return columns
        return {
            name: [_as_texts(item, f"[{row}].{name}") for row, item in enumerate(values)]
            if self._by_name.get(name, self._by_index[index])
            else values
            for index, (name, values) in enumerate(columns.items())
        }


def _has_bytes(schema_type: Any) -> bool:
    if isinstance(schema_type, Object):
        return any(_has_bytes(prop.dtype) for prop in schema_type.properties)
    if isinstance(schema_type, Array | Map):
        return _has_bytes(schema_type.value_type if isinstance(schema_type, Map) else schema_type.dtype)
    return bool(schema_type == DataType.binary)


def _as_texts(value: Any, path: str) -> Any:
    if isinstance(value, list):
        return [_as_texts(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: _as_texts(item, f"{path}.{key}") for key, item in value.items()}
    if not isinstance(value, bytes):
        return value
    # MLflow makes numpy bytes of the items of lists, and numpy drops NULs at the end.
    if not value.isascii() or value.endswith(b"\0"):
        _refuse(path)
    return value.decode()


def _refuse(path: str) -> NoReturn:
    what = "must be ASCII, with no NUL at the end: MLflow takes bytes within lists, objects and maps for texts"
    raise InvalidPayload(f"{path} {what}.", reason="INVALID_PARAMETER_VALUE", violations=(FieldViolation(path, what),))
