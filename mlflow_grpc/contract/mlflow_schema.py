"""Conversion of MLflow signatures to contracts, and of contracts to MLflow schemas.

Source: the JSON of `mlflow.models.ModelSignature.to_dict` (`mlflow.types.schema`).
"""

import json
from collections.abc import Callable, Mapping

from mlflow_grpc.contract.types import (
    AnyValue,
    Contract,
    DataType,
    Enumeration,
    Field,
    JsonSchema,
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


def contract_of(signature: Mapping[str, str | None] | None) -> Contract:
    """Makes the contract of a signature.

    Args:
        signature: The result of `ModelSignature.to_dict`: JSON texts under inputs, outputs and params, or None.

    Raises:
        UnknownTypeError: The signature has a type that no message can hold.

    """
    schemas = {key: json.loads(text) for key, text in (signature or {}).items() if text}
    params = schemas.get("params")
    return Contract(
        inputs=_schema(schemas.get("inputs"), "input", _input_takes_nulls),
        outputs=_schema(schemas.get("outputs"), "output", _output_has_nulls),
        params=Record("params", [_param(param) for param in params]) if params else None,
    )


NullRule = Callable[[str, Type, bool], bool]
"""Returns True if an array or map may have nulls. The arguments are `array` or `map`, the type of its values, and True
for an optional column or property."""

_NUMPY_TYPES = (DataType.BOOLEAN, DataType.DOUBLE, DataType.STRING, DataType.BINARY, DataType.DATETIME)
"""Types whose values MLflow puts into numpy arrays, which turn None into False, NaN, a string or NaT."""


def _input_takes_nulls(container: str, values: Type, optional: bool) -> bool:
    """The rule for inputs; source: `_enforce_array` and `_enforce_map` of `mlflow.models.utils`."""
    if isinstance(values, AnyValue):
        return False  # The type includes null.
    if container == "array" and isinstance(values, Scalar):
        return values.data_type in _NUMPY_TYPES
    return optional


def _output_has_nulls(container: str, values: Type, optional: bool) -> bool:
    """The rule for outputs: MLflow writes every None that a model returns, whatever the signature declares."""
    return not isinstance(values, AnyValue)


def _schema(specs: list[JsonSchema] | None, name: str, null_rule: NullRule) -> Record | Tensor | None:
    if specs is None:
        return None
    if len(specs) == 1 and specs[0]["type"] == "tensor" and not specs[0].get("name"):
        return _tensor(specs[0])
    return Record(name, [_field(spec, null_rule) for spec in specs])


def _field(spec: JsonSchema, null_rule: NullRule) -> Field:
    required = spec.get("required", True)
    name = "" if spec.get("name") is None else str(spec["name"])
    type_ = _type(spec, name, null_rule, not required)
    return Field(name, type_, required=required, nullable=not required)


def _properties(spec: JsonSchema, null_rule: NullRule) -> list[Field]:
    return [_field({**properties, "name": name}, null_rule) for name, properties in spec["properties"].items()]


def _type(spec: JsonSchema, name: str, null_rule: NullRule, optional: bool) -> Type:
    match spec["type"]:
        case "tensor":
            return _tensor(spec)
        case "array":
            items = _type(spec["items"], name, null_rule, optional)
            return ListOf(items, undeclared_nulls=null_rule("array", items, optional))
        case "map":
            values = _type(spec["values"], name, null_rule, optional)
            return MapOf(values, undeclared_nulls=null_rule("map", values, optional))
        case "object":
            return Record(name, _properties(spec, null_rule), is_closed=True)
        case "any":
            return AnyValue()
        case data_type:
            return _scalar(data_type)


def _scalar(data_type: str) -> Scalar:
    try:
        return Scalar(DataType(data_type))
    except ValueError:
        raise UnknownTypeError(f"its signature has the type {data_type}, for which there is no message") from None


def _tensor(spec: JsonSchema) -> Tensor:
    tensor = spec["tensor-spec"]
    return Tensor(tensor["dtype"], tuple(tensor["shape"]))


def _param(spec: JsonSchema) -> Field:
    type_: Type
    if spec["type"] == "object":
        type_ = Record(spec["name"], _properties(spec, _input_takes_nulls))
    else:
        type_ = _scalar(spec["type"])
    if spec.get("shape"):
        type_ = ListOf(type_, undeclared_nulls=True)  # MLflow does not check the items of a param.
    default = spec.get("default")
    return Field(spec["name"], type_, required=False, nullable=default is None, default=default)


def schema_of(record: Record) -> list[JsonSchema]:
    """Makes an MLflow schema of columns, which `mlflow.types.Schema.from_json` takes as JSON.

    A type that MLflow does not have becomes a wider one: an enumeration is a string, a union is anything.
    """
    return [
        {**_spec(field.type), **({"name": field.name} if field.name else {}), "required": field.needs_value}
        for field in record.fields
    ]


def _spec(type_: Type, outer: tuple[Record, ...] = ()) -> JsonSchema:
    match type_:
        case Scalar():
            return {"type": type_.data_type.value}
        case Enumeration():
            return {"type": DataType.STRING.value}
        case ListOf() if not type_.nullable and _is_known(type_.items, outer):
            return {"type": "array", "items": _spec(type_.items, outer)}
        case MapOf() if not type_.nullable and _is_known(type_.values, outer):
            return {"type": "map", "values": _spec(type_.values, outer)}
        case Record() if type_.fields and type_ not in outer:
            properties = {
                field.name: {**_spec(field.type, (*outer, type_)), "required": field.needs_value}
                for field in type_.fields
            }
            return {"type": "object", "properties": properties}
        case Tensor():
            return {"type": "tensor", "tensor-spec": {"dtype": type_.dtype, "shape": list(type_.shape)}}
        case ListOf():
            return {"type": "array", "items": {"type": "any"}}
        case MapOf():
            return {"type": "map", "values": {"type": "any"}}
        case AnyValue() | Union() | Record():
            return {"type": "any"}


def _is_known(type_: Type, outer: tuple[Record, ...]) -> bool:
    return _spec(type_, outer) != {"type": "any"}
