"""Faults of inputs of a model with a type hint.

Rule of this module: pydantic judges pydantic models, in the strict mode that MLflow sets, and MLflow judges all other
values. Texts of pydantic are repeated only if pydantic wrote them, because those of a model's validators may contain
the value.
"""

import datetime
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

import pydantic
from mlflow.types import DataType
from mlflow.types.schema import AnyType, Array, Map, Object, Property

from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.payload.mlflow_json.refusals import json_terms
from mlflow_grpc.payload.mlflow_json.refusals.value_faults import Fault

_PYTHON = {schema_type: schema_type.to_python() for schema_type in DataType} | {DataType.datetime: datetime.datetime}

_BOUNDS = frozenset(
    {
        "enum", "finite_number", "greater_than", "greater_than_equal", "less_than", "less_than_equal", "literal_error",
        "multiple_of", "string_pattern_mismatch", "string_too_long", "string_too_short", "too_long", "too_short",
    }
)  # fmt: skip
"""Pydantic errors whose messages contain only what the model declares, and lengths."""

_KEY_ERRORS = frozenset({"missing", "extra_forbidden"})
"""Pydantic errors of which one object may have several."""

_TYPE_ERRORS = ("_type", "_parsing", "_from_float")
"""Endings of the pydantic errors about the type of a value."""

_VALIDATOR_ERRORS = frozenset({"value_error", "assertion_error"})
"""Errors of the model's own validators."""


def within_hint(value: Any, schema_type: Any, hint: Any, path: str) -> Iterator[Fault]:
    """Yields the faults of a value for a type hint.

    Args:
        value: The value in the payload.
        schema_type: The type in the signature, which MLflow derived from the hint.
        hint: The type hint; None if it is unknown.
        path: Path of the value in the payload.

    """
    if value is None and type(None) in get_args(hint):
        return
    hint = _without_none(hint)
    if isinstance(schema_type, Object) and isinstance(value, dict):
        yield from _model_faults(value, schema_type, hint, path)
    elif isinstance(schema_type, Array) and isinstance(value, list):
        inner = _last_argument(hint)
        for index, item in enumerate(value):
            yield from within_hint(item, schema_type.dtype, inner, f"{path}[{index}]")
    elif isinstance(schema_type, Map) and isinstance(value, dict):
        inner = _last_argument(hint)
        for index, item in enumerate(value.values()):
            yield from within_hint(item, schema_type.value_type, inner, f"{path}{json_terms.key_step(index)}")
    elif isinstance(schema_type, Object | Array | Map) or (
        isinstance(schema_type, DataType) and not _takes(value, schema_type)
    ):
        yield _mismatch(value, schema_type, path)


def _model_faults(value: dict[str, Any], schema_type: Object, hint: Any, path: str) -> Iterator[Fault]:
    if isinstance(hint, type) and issubclass(hint, pydantic.BaseModel):
        try:
            internals.validate_model(hint, value)
        except pydantic.ValidationError as error:
            yield from (fault for _, fault in pydantic_faults(error, value, schema_type, path))
        return
    for prop in schema_type.properties:
        # An absent property may have a default, which is not in the signature.
        if prop.name in value and (prop.required or value[prop.name] is not None):
            at = f"{path}{json_terms.step(prop.name)}"
            yield from _strict_faults(value[prop.name], prop.dtype, at, required=prop.required)


def _strict_faults(value: Any, schema_type: Any, path: str, *, required: bool) -> Iterator[Fault]:
    """Yields the faults of a value within a pydantic model whose class is unknown."""
    if isinstance(schema_type, DataType):
        if not _takes_strictly(value, schema_type):
            yield _mismatch(value, schema_type, path, strict=True, required=required)
    else:
        yield from within_hint(value, schema_type, None, path)


def pydantic_faults(
    error: pydantic.ValidationError, value: Any, schema_type: Any, path: str
) -> Iterator[tuple[str, Fault]]:
    """Yields the faults in an error of pydantic in JSON's terms, each with its outermost field.

    The field is empty for a fault of the whole value, and for one in a key that the caller chose.

    Args:
        error: The error that pydantic raised.
        value: The value that pydantic validated.
        schema_type: Its type in the signature.
        path: Path of the value in the payload.

    """
    seen: set[str] = set()
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    union_types = _expected_by_unions(problems, value, schema_type, path)
    for problem in problems:
        steps, error_type = problem["loc"], problem["type"]
        fault = _translated(error_type, steps, problem["msg"], value, schema_type, path)
        if fault.path in union_types and error_type.endswith(_TYPE_ERRORS):
            item = _follow(steps, value, schema_type, path)[0]
            remedy = f"must be {' or '.join(dict.fromkeys(union_types[fault.path]))}"
            fault = Fault(fault.path, f"is {json_terms.article(item)}", remedy)
        # A union has an error for each of its members with the same path; the first one is reported.
        key = str(fault) if error_type in _KEY_ERRORS else fault.path
        if key not in seen:
            seen.add(key)
            yield _field(error_type, steps, schema_type), fault


def _expected_by_unions(problems: Any, value: Any, schema_type: Any, path: str) -> dict[str, list[str]]:
    """Returns the types that unions expect, by path. MLflow's signature has Any for a union."""
    expected: dict[str, list[str]] = {}
    for problem in problems:
        _, inner, _, at = _follow(problem["loc"], value, schema_type, path)
        if (inner is None or isinstance(inner, AnyType)) and problem["type"].endswith(_TYPE_ERRORS):
            expected.setdefault(at, []).append(json_terms.expected_by_pydantic(problem["type"], problem["msg"]))
    return expected


def _field(error_type: str, steps: tuple[int | str, ...], schema_type: Any) -> str:
    """Returns the outermost field of a fault; empty if the name is not the model's but the caller's."""
    is_missing = error_type == "missing" and len(steps) == 1
    return str(steps[0]) if steps and (is_missing or _property(schema_type, str(steps[0])) is not None) else ""


def _translated(
    error_type: str, steps: tuple[int | str, ...], message: str, value: Any, schema_type: Any, path: str
) -> Fault:
    if error_type == "missing":
        _, outer, _, at = _follow(steps[:-1], value, schema_type, path)
        name = str(steps[-1])
        prop = _property(outer, name)
        remedy = f"it {_remedy(prop.dtype, strict=True)}" if prop is not None else "it must be there"
        return Fault(at, f"lacks {name}", remedy)
    if error_type == "extra_forbidden":
        outer_value, _, _, at = _follow(steps[:-1], value, schema_type, path)
        index = list(outer_value).index(steps[-1])
        return Fault(
            at, f"has a key that the model does not take ({json_terms.key_step(index).strip('.<>')})", "leave it out"
        )
    item, inner, required, at = _follow(steps, value, schema_type, path)
    if error_type in _BOUNDS:
        rule = message.replace("Input should", "it must").replace(" should ", " must ")
        return Fault(at, "is refused", rule[:1].lower() + rule[1:])
    if error_type in _VALIDATOR_ERRORS or inner is None:
        return Fault(at, "is refused by the model", "only its owner knows what it takes")
    # Fields that are not strict have other errors, such as datetime_parsing.
    return _mismatch(item, inner, at, strict=error_type.endswith("_type"), required=required)


def _follow(steps: tuple[int | str, ...], value: Any, schema_type: Any, path: str) -> tuple[Any, Any, bool, str]:
    """Returns the value that a location of a pydantic error leads to, its type, True if it is required, and its path.

    The members of a union are steps of the location too; they are skipped. The path contains no name that the caller
    chose.
    """
    required = True
    for name in steps:
        if isinstance(value, list) and isinstance(name, int) and name < len(value):
            schema_type, value, path = getattr(schema_type, "dtype", None), value[name], f"{path}[{name}]"
        elif isinstance(value, dict) and isinstance(name, str) and name in value:
            prop = _property(schema_type, name)
            if prop is not None:
                schema_type, required, path = prop.dtype, prop.required, f"{path}{json_terms.step(name)}"
            else:
                schema_type, required = getattr(schema_type, "value_type", None), True
                path += json_terms.key_step(list(value).index(name))
            value = value[name]
    return value, schema_type, required, path


def _property(schema_type: Any, name: str) -> Property | None:
    properties = schema_type.properties if isinstance(schema_type, Object) else ()
    return next((prop for prop in properties if prop.name == name), None)


def _mismatch(value: Any, schema_type: Any, path: str, *, strict: bool = False, required: bool = True) -> Fault:
    problem = json_terms.problem(value, schema_type)
    if isinstance(value, str) and schema_type in (DataType.binary, DataType.datetime):
        format_name = "base64" if schema_type == DataType.binary else "a date and time in ISO 8601"
        problem = "is a string" if strict else f"is a string that is not {format_name}"
    return Fault(path, problem, _remedy(schema_type, strict=strict, required=required))


def _remedy(schema_type: Any, *, strict: bool, required: bool = True) -> str:
    name, description = json_terms.type_name(schema_type), json_terms.description(schema_type)
    if strict and schema_type in (DataType.binary, DataType.datetime):
        way_out = "the model's owner must declare str" if required else "leave it out"
        name = _PYTHON[schema_type].__name__
        return f"must be {name}, for which pydantic takes no string in MLflow's strict mode: {way_out}"
    return f"must be {name}: {description}{json_terms.such_as(json_terms.example(schema_type))}"


def _takes(value: Any, schema_type: DataType) -> bool:
    """Returns True if MLflow accepts a value for the hint of a scalar type."""
    try:
        internals.validate_type_hint(value, _PYTHON[schema_type])
    except Exception:  # noqa: BLE001 - every exception is a refusal: bad base64 is a binascii.Error
        return False
    return True


def _takes_strictly(value: Any, schema_type: DataType) -> bool:
    try:
        pydantic.TypeAdapter(_PYTHON[schema_type]).validate_python(value, strict=True)
    except pydantic.ValidationError:
        return False
    return True


def pydantic_error(cause: BaseException | None) -> pydantic.ValidationError | None:
    """Returns the pydantic error in the chain of causes of an exception; None if there is none."""
    while cause is not None and not isinstance(cause, pydantic.ValidationError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _without_none(hint: Any) -> Any:
    """Returns the type of an Optional; None for a union of several types, and other hints unchanged."""
    if get_origin(hint) in (Union, types.UnionType):
        members = [member for member in get_args(hint) if member is not type(None)]
        return members[0] if len(members) == 1 else None
    return hint


def _last_argument(hint: Any) -> Any:
    """Returns the type of the items of a list, or of the values of a dict; None if the hint has none."""
    arguments = get_args(hint)
    return arguments[-1] if arguments else None
