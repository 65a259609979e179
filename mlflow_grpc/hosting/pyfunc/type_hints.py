"""What a type hint says of a model's input beyond the signature that MLflow makes of it.

Rule of this module: MLflow validates by the hint and not by the signature, so the hint decides what may be left out,
what is refused beside its fields, and what a field is called.
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

Read = Callable[[Any], Any]


def item_hint(model: PyFuncModel) -> Any:
    """The type of one item of the input, such as X for `list[X]`; None if the signature is not of a type hint."""
    if not internals.is_signature_from_type_hint(model.metadata):
        return None
    try:
        hints = getattr(model.unwrap_python_model(), "predict_type_hints", None)
    except MlflowException:  # A loader of the model's own, that gives no PythonModel.
        return None
    hint = getattr(hints, "input", None)
    return get_args(hint)[0] if get_origin(hint) is list else None


def refined(contract: Contract, hint: Any) -> Contract:
    """A contract with what the hint says of its only input.

    Args:
        contract: Made from the signature.
        hint: Of `item_hint`.

    """
    inputs = contract.inputs
    if hint is None or not isinstance(inputs, Record) or len(inputs.fields) != 1:
        return contract
    (only,) = inputs.fields
    is_any = isinstance(only.type, AnyValue)
    field = replace(only, type=_refined(only.type, hint), nullable=only.nullable or is_any)
    return replace(contract, inputs=Record(inputs.name, [field], inputs.description))


def _refined(kind: Type, hint: Any) -> Type:
    hint = _without_none(hint)
    if isinstance(kind, Record) and _is_class(hint):
        known = hint.model_fields
        fields = [_field(each, known[each.name], hint) if each.name in known else each for each in kind.fields]
        return Record(kind.name, fields, kind.description, is_closed=hint.model_config.get("extra") == "forbid")
    if isinstance(kind, ListOf) and get_args(hint):
        item = get_args(hint)[0]
        return replace(kind, items=_refined(kind.items, item), nullable=_takes_none(item), undeclared_nulls=False)
    if isinstance(kind, MapOf) and len(get_args(hint)) > 1:
        value = get_args(hint)[1]
        return replace(kind, values=_refined(kind.values, value), nullable=_takes_none(value), undeclared_nulls=False)
    return kind


def _field(each: Field, info: FieldInfo, owner: Any) -> Field:
    default, is_unsayable = _default(info)
    return replace(
        each,
        name=_name(each.name, info, owner),
        type=_refined(each.type, info.annotation),
        required=info.is_required(),
        default=default,
        has_default_outside_json=is_unsayable,
        description=info.description or "",
    )


def _name(name: str, info: FieldInfo, owner: Any) -> str:
    """What a record calls a field: its alias, unless the class takes its name too."""
    config = owner.model_config
    takes_name = config.get("populate_by_name") or config.get("validate_by_name")
    return info.validation_alias if isinstance(info.validation_alias, str) and not takes_name else name


def _default(info: FieldInfo) -> tuple[Any, bool]:
    """The default as JSON, and whether there is one that JSON cannot say, or that is made anew.

    One that is made anew is known if it is an empty list or dictionary.
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


def reader(hint: Any) -> Read | None:
    """What makes values that MLflow takes of JSON's; None if it takes JSON's.

    Outside of classes of pydantic's MLflow reads texts as bytes and points in time itself; within these it takes none.
    """
    return _reader(hint, within=False)


def _reader(hint: Any, *, within: bool) -> Read | None:
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
        return _of_fields(fields) if fields else None
    arguments = get_args(hint)
    of_item = _reader(arguments[-1], within=within) if get_origin(hint) in (list, dict) else None
    if of_item is None:
        return None
    return _of_values(of_item) if get_origin(hint) is dict else _of_items(of_item)


def _of_fields(fields: dict[str, Read]) -> Read:
    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        found = {name: fields[name](item) for name, item in value.items() if name in fields and item is not None}
        return {**value, **found}

    return read


def _of_items(of_item: Read) -> Read:
    return lambda value: [None if item is None else of_item(item) for item in value]


def _of_values(of_item: Read) -> Read:
    return lambda value: {key: None if item is None else of_item(item) for key, item in value.items()}


def problems(hint: Any, value: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The places within a value that the hint's classes refuse, and why, in pydantic's words.

    What a validator of the model's own says is left out: it may hold the value.
    """
    if value is None and _takes_none(hint):
        return
    hint = _without_none(hint)
    if _is_class(hint):
        try:
            hint.model_validate(value, strict=True)
        except pydantic.ValidationError as error:
            said: dict[tuple[str | int, ...], list[str]] = {}
            for problem in error.errors(include_url=False, include_context=False, include_input=False):
                is_own = problem["type"] in ("value_error", "assertion_error")
                steps = _steps_of(value, problem["loc"], is_missing=problem["type"] == "missing")
                said.setdefault(steps, []).append("is refused by the model" if is_own else problem["msg"])
            for steps, texts in said.items():
                # The types of a union have an error each.
                yield steps, " or ".join([texts[0], *(text.removeprefix("Input should be ") for text in texts[1:])])
    elif get_origin(hint) is list and isinstance(value, list):
        for place, item in enumerate(value):
            yield from (((place, *loc), text) for loc, text in problems(get_args(hint)[0], item))
    elif get_origin(hint) is dict and isinstance(value, dict):
        for key, item in value.items():
            yield from (((key, *loc), text) for loc, text in problems(get_args(hint)[1], item))


def ignored_keys(hint: Any, value: Any, path: str = "") -> Iterator[str]:
    """The keys of objects that the hint's classes leave out without a word, by the way to them without positions."""
    hint = _without_none(hint)
    if get_origin(hint) is list and isinstance(value, list):
        for item in value:
            yield from ignored_keys(get_args(hint)[0], item, path)
    elif get_origin(hint) is dict and isinstance(value, dict):
        for item in value.values():
            yield from ignored_keys(get_args(hint)[1], item, path)
    elif _is_class(hint) and isinstance(value, dict) and hint.model_config.get("extra", "ignore") == "ignore":
        known = keys(hint)
        for key, item in value.items():
            if key not in known:
                yield f"{path}{key}"
            elif isinstance(item, dict | list):
                yield from ignored_keys(known[key], item, f"{path}{key}.")


def keys(hint: Any) -> dict[str, Any]:
    """The keys that an object may have for a hint's class, with their own hints; none for another hint."""
    hint = _without_none(hint)
    if not _is_class(hint):
        return {}
    return {
        key: info.annotation
        for name, info in hint.model_fields.items()
        for key in (name, *aliases(info.validation_alias))
    }


def _steps_of(value: Any, loc: tuple[str | int, ...], *, is_missing: bool) -> tuple[str | int, ...]:
    """The steps of pydantic's that lead through a value; the types of a union are steps too, which no value has."""
    steps: list[str | int] = []
    for place, step in enumerate(loc):
        is_there = isinstance(value, dict) and step in value
        if is_there or (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            value = value[step]
        elif not (is_missing and place == len(loc) - 1):
            continue
        steps.append(step)
    return tuple(steps)


def _without_none(hint: Any) -> Any:
    """X for X | None."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    others = [each for each in get_args(hint) if each is not type(None)]
    return others[0] if len(others) == 1 else hint


def _takes_none(hint: Any) -> bool:
    """Whether None is one of the values of a hint that says others too."""
    return get_origin(hint) in (Union, UnionType) and type(None) in get_args(hint)


def _is_class(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, pydantic.BaseModel)
