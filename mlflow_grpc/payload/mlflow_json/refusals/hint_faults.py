"""The places in the inputs of a model with a type hint that MLflow refuses.

Rule of this module: MLflow judges what is no pydantic model, and pydantic what is one, in the strict mode that MLflow
has it use. Of what pydantic says only its own words are repeated: those of a model's validators may hold the value.
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

_PYTHON = {of: of.to_python() for of in DataType} | {DataType.datetime: datetime.datetime}

_BOUNDS = frozenset(
    {
        "enum", "finite_number", "greater_than", "greater_than_equal", "less_than", "less_than_equal", "literal_error",
        "multiple_of", "string_pattern_mismatch", "string_too_long", "string_too_short", "too_long", "too_short",
    }
)  # fmt: skip
"""Errors of pydantic whose words hold what the model declares, and lengths."""

_OF_KEYS = frozenset({"missing", "extra_forbidden"})
"""Errors of which one object may have several."""

_OF_TYPES = ("_type", "_parsing", "_from_float")
"""What errors end with that say of which type a value is to be."""

_OWN = frozenset({"value_error", "assertion_error"})
"""Errors of the model's own validators."""


def within_hint(value: Any, of: Any, hint: Any, path: str) -> Iterator[Fault]:
    """The faults of a value for a type hint.

    Args:
        value: What stands in the payload.
        of: The type in the signature that MLflow has made from the hint.
        hint: The type hint; None where it is not known.
        path: Where the value stands.

    """
    if value is None and type(None) in get_args(hint):
        return
    hint = _without_none(hint)
    if isinstance(of, Object) and isinstance(value, dict):
        yield from _of_model(value, of, hint, path)
    elif isinstance(of, Array) and isinstance(value, list):
        inner = _last_argument(hint)
        for index, item in enumerate(value):
            yield from within_hint(item, of.dtype, inner, f"{path}[{index}]")
    elif isinstance(of, Map) and isinstance(value, dict):
        inner = _last_argument(hint)
        for index, item in enumerate(value.values()):
            yield from within_hint(item, of.value_type, inner, f"{path}{json_terms.key_step(index)}")
    elif isinstance(of, Object | Array | Map) or (isinstance(of, DataType) and not _takes(value, of)):
        yield _mismatch(value, of, path)


def _of_model(value: dict[str, Any], of: Object, hint: Any, path: str) -> Iterator[Fault]:
    if isinstance(hint, type) and issubclass(hint, pydantic.BaseModel):
        try:
            internals.validate_model(hint, value)
        except pydantic.ValidationError as error:
            yield from (fault for _, fault in said_by_pydantic(error, value, of, path))
        return
    for prop in of.properties:
        # What is not there may have a default, which the signature does not tell.
        if prop.name in value and (prop.required or value[prop.name] is not None):
            at = f"{path}{json_terms.step(prop.name)}"
            yield from _strictly(value[prop.name], prop.dtype, at, required=prop.required)


def _strictly(value: Any, of: Any, path: str, *, required: bool) -> Iterator[Fault]:
    """As `within_hint`, within a pydantic model whose class is not known."""
    if isinstance(of, DataType):
        if not _takes_strictly(value, of):
            yield _mismatch(value, of, path, strict=True, required=required)
    else:
        yield from within_hint(value, of, None, path)


def said_by_pydantic(error: pydantic.ValidationError, value: Any, of: Any, path: str) -> Iterator[tuple[str, Fault]]:
    """The faults that a pydantic model has found, in JSON's terms, each with the outermost field that it is in.

    The field is empty for a fault of the whole value, or in a key that the caller chose.

    Args:
        error: What pydantic raised.
        value: What it was given.
        of: The type in the signature that goes with it.
        path: Where the value stands.

    """
    seen: set[str] = set()
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    of_unions = _wanted_of_unions(problems, value, of, path)
    for problem in problems:
        steps, error_type = problem["loc"], problem["type"]
        fault = _translated(error_type, steps, problem["msg"], value, of, path)
        if fault.path in of_unions and error_type.endswith(_OF_TYPES):
            item = _follow(steps, value, of, path)[0]
            remedy = f"must be {' or '.join(dict.fromkeys(of_unions[fault.path]))}"
            fault = Fault(fault.path, f"is {json_terms.article(item)}", remedy)
        # A union has an error for each of its members at the same place, of which the first is as good as any.
        key = str(fault) if error_type in _OF_KEYS else fault.path
        if key not in seen:
            seen.add(key)
            yield _field(error_type, steps, of), fault


def _wanted_of_unions(problems: Any, value: Any, of: Any, path: str) -> dict[str, list[str]]:
    """What each type of a union wants of the values at its places: MLflow's signature has Any for unions."""
    found: dict[str, list[str]] = {}
    for problem in problems:
        _, inner, _, at = _follow(problem["loc"], value, of, path)
        if (inner is None or isinstance(inner, AnyType)) and problem["type"].endswith(_OF_TYPES):
            found.setdefault(at, []).append(json_terms.wanted(problem["type"], problem["msg"]))
    return found


def _field(error_type: str, steps: tuple[int | str, ...], of: Any) -> str:
    """The outermost field of a fault, if it is the model that calls it so."""
    is_missing = error_type == "missing" and len(steps) == 1
    return str(steps[0]) if steps and (is_missing or _property(of, str(steps[0])) is not None) else ""


def _translated(error_type: str, steps: tuple[int | str, ...], message: str, value: Any, of: Any, path: str) -> Fault:
    if error_type == "missing":
        _, outer, _, at = _follow(steps[:-1], value, of, path)
        name = str(steps[-1])
        prop = _property(outer, name)
        remedy = f"it {_remedy(prop.dtype, strict=True)}" if prop is not None else "it must be there"
        return Fault(at, f"lacks {name}", remedy)
    if error_type == "extra_forbidden":
        outer_value, _, _, at = _follow(steps[:-1], value, of, path)
        index = list(outer_value).index(steps[-1])
        return Fault(
            at, f"has a key that the model does not take ({json_terms.key_step(index).strip('.<>')})", "leave it out"
        )
    item, inner, required, at = _follow(steps, value, of, path)
    if error_type in _BOUNDS:
        rule = message.replace("Input should", "it must").replace(" should ", " must ")
        return Fault(at, "is refused", rule[:1].lower() + rule[1:])
    if error_type in _OWN or inner is None:
        return Fault(at, "is refused by the model", "only its owner knows what it takes")
    # A field that is not strict has other errors: datetime_parsing, for example.
    return _mismatch(item, inner, at, strict=error_type.endswith("_type"), required=required)


def _follow(steps: tuple[int | str, ...], value: Any, of: Any, path: str) -> tuple[Any, Any, bool, str]:
    """The value at the end of some steps of pydantic's, its type, whether it has to be there, and its path.

    Members of a union are steps too, which no value has. Names that the caller chose are left out of the path.
    """
    required = True
    for name in steps:
        if isinstance(value, list) and isinstance(name, int) and name < len(value):
            of, value, path = getattr(of, "dtype", None), value[name], f"{path}[{name}]"
        elif isinstance(value, dict) and isinstance(name, str) and name in value:
            prop = _property(of, name)
            path += json_terms.step(name) if prop is not None else json_terms.key_step(list(value).index(name))
            of, required = (prop.dtype, prop.required) if prop is not None else (getattr(of, "value_type", None), True)
            value = value[name]
    return value, of, required, path


def _property(of: Any, name: str) -> Property | None:
    return next((prop for prop in of.properties if prop.name == name), None) if isinstance(of, Object) else None


def _mismatch(value: Any, of: Any, path: str, *, strict: bool = False, required: bool = True) -> Fault:
    problem = json_terms.problem(value, of)
    if isinstance(value, str) and of in (DataType.binary, DataType.datetime):
        format_name = "base64" if of == DataType.binary else "date and time in ISO 8601"
        problem = "is a string" if strict else f"is a string that is no {format_name}"
    return Fault(path, problem, _remedy(of, strict=strict, required=required))


def _remedy(of: Any, *, strict: bool, required: bool = True) -> str:
    if strict and of in (DataType.binary, DataType.datetime):
        way_out = "the model's owner must declare str" if required else "leave it out"
        return f"must be {_PYTHON[of].__name__}, for which pydantic takes no string in MLflow's strict mode: {way_out}"
    return (
        f"must be {json_terms.type_name(of)}: {json_terms.description(of)}{json_terms.such_as(json_terms.example(of))}"
    )


def _takes(value: Any, of: DataType) -> bool:
    """Whether MLflow takes a value for a hint of a plain type."""
    try:
        internals.validate_type_hint(value, _PYTHON[of])
    except Exception:  # noqa: BLE001 - a refusal, whatever is raised: bad base64 is a binascii.Error
        return False
    return True


def _takes_strictly(value: Any, of: DataType) -> bool:
    try:
        pydantic.TypeAdapter(_PYTHON[of]).validate_python(value, strict=True)
    except pydantic.ValidationError:
        return False
    return True


def _without_none(hint: Any) -> Any:
    """The other type of an Optional."""
    if get_origin(hint) in (Union, types.UnionType):
        others = [other for other in get_args(hint) if other is not type(None)]
        return others[0] if len(others) == 1 else None
    return hint


def _last_argument(hint: Any) -> Any:
    """What the items of a list, or the values of a dict, are to be."""
    arguments = get_args(hint)
    return arguments[-1] if arguments else None
