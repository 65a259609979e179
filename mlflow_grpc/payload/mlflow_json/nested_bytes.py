"""Bytes within lists, objects and maps, for MLflow's parser.

Rule of this module: MLflow decodes base64 where a whole column is binary. Within others it takes a text for the bytes
that it says in ASCII, so they go there as that text, or not at all.
"""

from typing import Any, NoReturn

from mlflow.types import DataType, Schema
from mlflow.types.schema import Array, Map, Object

from mlflow_grpc.errors import FieldViolation, InvalidPayload


class NestedBytes:
    """Knows which columns of one model have bytes within them."""

    def __init__(self, schema: Schema | None) -> None:
        """Args:
        schema: Of the model's columns; None if MLflow decodes base64 at every depth of them.
        """
        specs = [] if schema is None or schema.is_tensor_spec() else list(schema)
        self._are = [each.type != DataType.binary and _has_bytes(each.type) for each in specs]
        self._by_name = {str(each.name): found for each, found in zip(specs, self._are, strict=True)}

    def as_texts(self, columns: dict[str, Any]) -> dict[str, Any]:
        """The columns of one record with texts for such bytes.

        Raises:
            InvalidPayload: There are some that no text says.

        """
        if not any(self._are):
            return columns
        return {
            name: _as_texts(value, name) if self._by_name.get(name, self._are[place]) else value
            for place, (name, value) in enumerate(columns.items())
        }

    def of_rows(self, columns: dict[str, Any]) -> dict[str, Any]:
        """The columns of any number of records with texts for such bytes; raises what `as_texts` raises."""
        if not any(self._are):
            return columns
        return {
            name: [_as_texts(item, f"[{row}].{name}") for row, item in enumerate(values)]
            if self._by_name.get(name, self._are[place])
            else values
            for place, (name, values) in enumerate(columns.items())
        }


def _has_bytes(kind: Any) -> bool:
    if isinstance(kind, Object):
        return any(_has_bytes(each.dtype) for each in kind.properties)
    if isinstance(kind, Array | Map):
        return _has_bytes(kind.value_type if isinstance(kind, Map) else kind.dtype)
    return bool(kind == DataType.binary)


def _as_texts(value: Any, where: str) -> Any:
    if isinstance(value, list):
        return [_as_texts(each, f"{where}[{place}]") for place, each in enumerate(value)]
    if isinstance(value, dict):
        return {key: _as_texts(each, f"{where}.{key}") for key, each in value.items()}
    if not isinstance(value, bytes):
        return value
    if not value.isascii() or value.endswith(b"\0"):  # Of lists MLflow makes numpy's bytes, which lose NULs at the end.
        _refuse(where)
    return value.decode()


def _refuse(where: str) -> NoReturn:
    what = "must be ASCII, with no NUL at the end: MLflow takes bytes within lists, objects and maps for texts"
    raise InvalidPayload(
        f"{where} {what}.", reason="INVALID_PARAMETER_VALUE", violations=(FieldViolation(where, what),)
    )
