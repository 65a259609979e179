"""Contracts out of MLflow signatures, and MLflow schemas out of contracts.

Source: the JSON of `mlflow.models.ModelSignature.to_dict` (`mlflow.types.schema`).
"""

import json
from collections.abc import Callable
from typing import Any

from mlflow_grpc.contract.types import (
    AnyValue,
    Contract,
    Enumeration,
    Field,
    Kind,
    ListOf,
    MapOf,
    Record,
    Scalar,
    Tensor,
    Type,
    Union,
)


class UnknownTypeError(ValueError):
    """A signature has a type that no message can hold, such as a vector of Spark ML."""


def contract_of(signature: dict[str, Any] | None) -> Contract:
    """The contract of a signature.

    Args:
        signature: As `ModelSignature.to_dict` gives it: JSON texts under inputs, outputs and params, or None.

    Raises:
        UnknownTypeError: One of its types is not known here.

    """
    parts = {key: json.loads(text) for key, text in (signature or {}).items() if text}
    params = parts.get("params")
    return Contract(
        inputs=_schema(parts.get("inputs"), "input", _takes_nulls),
        outputs=_schema(parts.get("outputs"), "output", _gives_nulls),
        params=Record("params", [_param(param) for param in params]) if params else None,
    )


Nulls = Callable[[str, Type, bool], bool]
"""Whether an array or map of a type of values may have nulls, in a column or property that is optional or not."""

_MADE_BY_NUMPY = (Kind.BOOLEAN, Kind.DOUBLE, Kind.STRING, Kind.BINARY)
"""The values of which MLflow makes arrays of numpy's, where these take None: as False, NaN and the text of it."""


def _takes_nulls(holder: str, values: Type, optional: bool) -> bool:
    """Of an input; source: `_enforce_array` and `_enforce_map` of `mlflow.models.utils`."""
    if isinstance(values, AnyValue):
        return False  # It says null itself.
    if holder == "array" and isinstance(values, Scalar):
        return values.kind in _MADE_BY_NUMPY
    return optional


def _gives_nulls(holder: str, values: Type, optional: bool) -> bool:
    """Of an output: MLflow writes None wherever a model gives it, whatever the signature says."""
    return not isinstance(values, AnyValue)


def _schema(specs: list[dict[str, Any]] | None, name: str, nulls: Nulls) -> Record | Tensor | None:
    if specs is None:
        return None
    if len(specs) == 1 and specs[0]["type"] == "tensor" and not specs[0].get("name"):
        return _tensor(specs[0])
    return Record(name, [_field(spec, nulls) for spec in specs])


def _field(spec: dict[str, Any], nulls: Nulls) -> Field:
    required = spec.get("required", True)
    name = "" if spec.get("name") is None else str(spec["name"])
    return Field(name, _type(spec, name, nulls, not required), required=required, nullable=not required)


def _type(spec: dict[str, Any], name: str, nulls: Nulls, optional: bool) -> Type:
    match spec["type"]:
        case "tensor":
            return _tensor(spec)
        case "array":
            items = _type(spec["items"], name, nulls, optional)
            return ListOf(items, nulls_beside=nulls("array", items, optional))
        case "map":
            values = _type(spec["values"], name, nulls, optional)
            return MapOf(values, nulls_beside=nulls("map", values, optional))
        case "object":
            fields = [_field({**each, "name": key}, nulls) for key, each in spec["properties"].items()]
            return Record(name, fields, is_closed=True)
        case "any":
            return AnyValue()
        case kind:
            return _scalar(kind)


def _scalar(kind: Any) -> Scalar:
    try:
        return Scalar(Kind(kind))
    except ValueError:
        raise UnknownTypeError(f"its signature has the type {kind}, for which there is no message") from None


def _tensor(spec: dict[str, Any]) -> Tensor:
    tensor = spec["tensor-spec"]
    return Tensor(tensor["dtype"], tuple(tensor["shape"]))


def _param(spec: dict[str, Any]) -> Field:
    if spec["type"] == "object":
        properties = [{**each, "name": key} for key, each in spec["properties"].items()]
        kind: Type = Record(spec["name"], [_field(each, _takes_nulls) for each in properties])
    else:
        kind = _scalar(spec["type"])
    if spec.get("shape"):
        kind = ListOf(kind, nulls_beside=True)  # MLflow looks at no value of a param that is None.
    return Field(spec["name"], kind, required=False, nullable=spec.get("default") is None, default=spec.get("default"))


def schema_of(record: Record) -> list[dict[str, Any]]:
    """A record as an MLflow schema of columns, which `mlflow.types.Schema.from_json` takes as JSON.

    Where MLflow's types say less, the column says less: an enumeration is a string, a union anything.
    """
    return [
        {**_spec(each.type), **({"name": each.name} if each.name else {}), "required": each.needs_value}
        for each in record.fields
    ]


def _spec(kind: Type, within: tuple[Record, ...] = ()) -> dict[str, Any]:
    match kind:
        case Scalar():
            return {"type": kind.kind.value}
        case Enumeration():
            return {"type": Kind.STRING.value}
        case ListOf() if not kind.nullable and _is_known(kind.items, within):
            return {"type": "array", "items": _spec(kind.items, within)}
        case MapOf() if not kind.nullable and _is_known(kind.values, within):
            return {"type": "map", "values": _spec(kind.values, within)}
        case Record() if kind.fields and kind not in within:
            properties = {
                each.name: {**_spec(each.type, (*within, kind)), "required": each.needs_value} for each in kind.fields
            }
            return {"type": "object", "properties": properties}
        case Tensor():
            return {"type": "tensor", "tensor-spec": {"dtype": kind.dtype, "shape": list(kind.shape)}}
        case ListOf():
            return {"type": "array", "items": {"type": "any"}}
        case MapOf():
            return {"type": "map", "values": {"type": "any"}}
        case AnyValue() | Union() | Record():
            return {"type": "any"}


def _is_known(kind: Type, within: tuple[Record, ...]) -> bool:
    return _spec(kind, within) != {"type": "any"}
