"""Details of a model's input that are in its type hint, but not in the signature that MLflow derives from the hint.

Rule of this module: MLflow validates with the hint, not with the signature. So the hint decides which fields are
optional, whether unknown fields are refused, and the names of fields.
"""

import base64
import datetime
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pydantic
import pydantic_core
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel
from pydantic.fields import FieldInfo

from mlflow_grpc.contract.types import AnyValue, Contract, Field, ListOf, MapOf, Record, Type
from mlflow_grpc.hosting.aliases import aliases
from mlflow_grpc.hosting.pyfunc import internals

Reader = Callable[[Any], Any]


def item_hint(model: PyFuncModel) -> Any:
    """Returns the type of one item of the input, such as X for `list[X]`; None if there is no type hint."""
    if not internals.is_signature_from_type_hint(model.metadata):
        return None
    try:
        hints = getattr(model.unwrap_python_model(), "predict_type_hints", None)
    except MlflowException:  # A custom loader, whose model is not a PythonModel.
        return None
    hint = getattr(hints, "input", None)
    return get_args(hint)[0] if get_origin(hint) is list else None


def refined(contract: Contract, hint: Any) -> Contract:
    """Returns a contract whose only input has the details of the hint.

    Args:
        contract: The contract from the signature.
        hint: The result of `item_hint`.

    """
    inputs = contract.inputs
    if hint is None or not isinstance(inputs, Record) or len(inputs.fields) != 1:
        return contract
    (only,) = inputs.fields
    is_any = isinstance(only.type, AnyValue)
    field = replace(only, type=_refined(only.type, hint), nullable=only.nullable or is_any)
    return replace(contract, inputs=Record(inputs.name, [field], inputs.description))


def _refined(field_type: Type, hint: Any) -> Type:
    hint = _without_none(hint)
    if isinstance(field_type, Record) and _is_class(hint):
        declared = hint.model_fields
        fields = [
            _field(field, declared[field.name], hint) if field.name in declared else field
            for field in field_type.fields
        ]
        is_closed = hint.model_config.get("extra") == "forbid"
        return Record(field_type.name, fields, field_type.description, is_closed=is_closed)
    if isinstance(field_type, ListOf) and get_args(hint):
        item = get_args(hint)[0]
        items = _refined(field_type.items, item)
        return replace(field_type, items=items, nullable=_takes_none(item), undeclared_nulls=False)
    if isinstance(field_type, MapOf) and len(get_args(hint)) > 1:
        value = get_args(hint)[1]
        values = _refined(field_type.values, value)
        return replace(field_type, values=values, nullable=_takes_none(value), undeclared_nulls=False)
    return field_type


def _field(field: Field, info: FieldInfo, owner: Any) -> Field:
    default, has_default_outside_json = _default(info)
    return replace(
        field,
        name=_name(field.name, info, owner),
        type=_refined(field.type, info.annotation),
        required=info.is_required(),
        default=default,
        has_default_outside_json=has_default_outside_json,
        description=info.description or "",
    )


def _name(name: str, info: FieldInfo, owner: Any) -> str:
    """Returns the key of a field in a record: its alias, unless the class also takes the field's name."""
    config = owner.model_config
    takes_name = config.get("populate_by_name") or config.get("validate_by_name")
    return info.validation_alias if isinstance(info.validation_alias, str) and not takes_name else name


def _default(info: FieldInfo) -> tuple[Any, bool]:
    """Returns the default as JSON, and True if there is a default that has no fixed JSON form.

    A default from a factory has none, unless it is an empty list or dictionary.
    """
    if info.default_factory in (list, dict):
        return info.get_default(call_default_factory=True, validated_data={}), False
    if info.is_required():
        return None, False
    if info.default_factory is not None:
        return None, True
    try:
        return pydantic_core.to_jsonable_python(info.default), False
    except pydantic_core.PydanticSerializationError:
        return None, True


def reader(hint: Any) -> Reader | None:
    """Returns a function that converts JSON values to values that MLflow takes; None if MLflow takes JSON values.

    MLflow converts strings to bytes and timestamps by itself, except inside pydantic classes.
    """
    return _reader(hint, within=False)


def _reader(hint: Any, *, within: bool) -> Reader | None:
    hint = _without_none(hint)
    if within and hint is datetime.datetime:
        return datetime.datetime.fromisoformat
    if within and hint is bytes:
        return base64.b64decode
    if _is_class(hint):
        fields = {
            _name(name, info, hint): read
            for name, info in hint.model_fields.items()
            if (read := _reader(info.annotation, within=True)) is not None
        }
        return _fields_reader(fields) if fields else None
    arguments = get_args(hint)
    read_item = _reader(arguments[-1], within=within) if get_origin(hint) in (list, dict) else None
    if read_item is None:
        return None
    return _values_reader(read_item) if get_origin(hint) is dict else _items_reader(read_item)


def _fields_reader(fields: dict[str, Reader]) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        converted = {name: fields[name](item) for name, item in value.items() if name in fields and item is not None}
        return {**value, **converted}

    return read


def _items_reader(read_item: Reader) -> Reader:
    return lambda value: [None if item is None else read_item(item) for item in value]


def _values_reader(read_item: Reader) -> Reader:
    return lambda value: {key: None if item is None else read_item(item) for key, item in value.items()}


def problems(hint: Any, value: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yields the path and the reason of each error in a value, with pydantic's messages.

    Messages of the model's own validators are replaced by a fixed text, because they may contain the value.
    """
    if value is None and _takes_none(hint):
        return
    hint = _without_none(hint)
    if _is_class(hint):
        try:
            hint.model_validate(value, strict=True)
        except pydantic.ValidationError as error:
            messages: dict[tuple[str | int, ...], list[str]] = {}
            for problem in error.errors(include_url=False, include_context=False, include_input=False):
                is_custom = problem["type"] in ("value_error", "assertion_error")
                steps = _steps_of(value, problem["loc"], is_missing=problem["type"] == "missing")
                messages.setdefault(steps, []).append("is refused by the model" if is_custom else problem["msg"])
            for steps, texts in messages.items():
                # There is one error per type of a union.
                yield steps, " or ".join([texts[0], *(text.removeprefix("Input should be ") for text in texts[1:])])
    elif get_origin(hint) is list and isinstance(value, list):
        for index, item in enumerate(value):
            yield from (((index, *loc), text) for loc, text in problems(get_args(hint)[0], item))
    elif get_origin(hint) is dict and isinstance(value, dict):
        for key, item in value.items():
            yield from (((key, *loc), text) for loc, text in problems(get_args(hint)[1], item))


def ignored_keys(hint: Any, value: Any, path: str = "") -> Iterator[str]:
    """Yields the keys that the hint's classes ignore silently, as paths without list indices."""
    hint = _without_none(hint)
    if get_origin(hint) is list and isinstance(value, list):
        for item in value:
            yield from ignored_keys(get_args(hint)[0], item, path)
    elif get_origin(hint) is dict and isinstance(value, dict):
        for item in value.values():
            yield from ignored_keys(get_args(hint)[1], item, path)
    elif _is_class(hint) and isinstance(value, dict) and hint.model_config.get("extra", "ignore") == "ignore":
        declared = keys(hint)
        for key, item in value.items():
            if key not in declared:
                yield f"{path}{key}"
            elif isinstance(item, dict | list):
                yield from ignored_keys(declared[key], item, f"{path}{key}.")


def keys(hint: Any) -> dict[str, Any]:
    """Returns the keys that an object of a hint's class may have, with their hints; empty for other hints."""
    hint = _without_none(hint)
    if not _is_class(hint):
        return {}
    return {
        key: info.annotation
        for name, info in hint.model_fields.items()
        for key in (name, *aliases(info.validation_alias))
    }


def _steps_of(value: Any, loc: tuple[str | int, ...], *, is_missing: bool) -> tuple[str | int, ...]:
    """Returns the steps of a pydantic path that exist in a value; it also has steps for the types of a union."""
    steps: list[str | int] = []
    for index, step in enumerate(loc):
        is_there = isinstance(value, dict) and step in value
        if is_there or (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            value = value[step]
        elif not (is_missing and index == len(loc) - 1):
            continue
        steps.append(step)
    return tuple(steps)


def _without_none(hint: Any) -> Any:
    """Returns X for the hint X | None, and any other hint unchanged."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    alternatives = [alternative for alternative in get_args(hint) if alternative is not type(None)]
    return alternatives[0] if len(alternatives) == 1 else hint


def _takes_none(hint: Any) -> bool:
    """Returns True if a hint is a union with None."""
    return get_origin(hint) in (Union, UnionType) and type(None) in get_args(hint)


def _is_class(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, pydantic.BaseModel)
