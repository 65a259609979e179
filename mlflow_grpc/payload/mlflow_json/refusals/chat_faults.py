"""Faults of a request to a chat API of MLflow that MLflow's own classes refuse.

Rule of this module: MLflow's classes judge. A request is divided into messages and tools until the value that is
refused by itself is found. A fault repeats the class's message without the values in it. If a value may have several
types, a fault names only the type that the value's `type` key or form selects.
"""

import dataclasses
import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pydantic
from mlflow.types import Schema
from mlflow.types.agent import ChatAgentMessage, ChatContext
from mlflow.types.llm import ChatMessage, ChatParams

from mlflow_grpc.errors import FieldViolation
from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.payload.codec import ABSENT
from mlflow_grpc.payload.mlflow_json.refusals import json_terms
from mlflow_grpc.payload.mlflow_json.refusals.tables import Table

_JSON_NAMES: dict[Any, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "an array",
    dict: "an object",
    Any: "any JSON value",
}
"""Description of a JSON value of each Python type."""


@dataclasses.dataclass(frozen=True, slots=True)
class ChatFault:
    """Refusal of one value in a request."""

    field: str
    """Field of the request that holds the value; empty for the request itself."""
    path: str
    """Path from that field to the value."""
    problem: str
    remedy: str


def faults(api: internals.ChatApi, request: dict[str, Any]) -> Iterator[ChatFault]:
    """Yields the faults of a request that the classes of an API have refused.

    Args:
        api: The API that the model implements.
        request: The request as parsed JSON.

    """
    match api:
        case internals.ChatApi.CHAT_MODEL:
            params = {name: value for name, value in request.items() if name != "messages"}
            triples = [
                *_field_faults({"messages": list[ChatMessage]}, request),
                *_object_faults(ChatParams, params, ""),
            ]
        case internals.ChatApi.CHAT_AGENT:
            triples = [*_field_faults({"messages": list[ChatAgentMessage], "context": ChatContext}, request)]
        case internals.ChatApi.RESPONSES_AGENT:
            triples = [*_object_faults(internals.ResponsesAgentRequest, request, "")]
    for path, problem, remedy in triples:
        steps = re.match(r"\.(\w+)(.*)", path, re.DOTALL)
        yield ChatFault(steps[1], steps[2], problem, remedy) if steps else ChatFault("", "", problem, remedy)


def violations(api: internals.ChatApi, table: Table, schema: Schema, *, is_message: bool) -> list[FieldViolation]:
    """Returns the faults of a request that fits the signature; the first column if no fault is found.

    Args:
        api: The API that the model implements.
        table: The request as a table of one row.
        schema: The model's input schema.
        is_message: True if the request was made from a message, in which a path begins with the field.

    """
    columns = {str(spec.name): index for index, spec in enumerate(schema.inputs) if table.has(index)}
    request = {name: cell for name, index in columns.items() if (cell := table.cell(index, 0)) is not ABSENT}
    refused = []
    for fault in faults(api, request):
        field, what = f"{fault.field}{fault.path}" or "the record", f"{fault.problem}; {fault.remedy}"
        if not is_message:
            path = table.path(columns[fault.field], 0) if fault.field else table.row_path(0)
            field, what = fault.field or "request", f"{path}{fault.path} {what}"
        refused.append(FieldViolation(field, what))
    description = f"is refused by MLflow's classes for a {api.rpartition('.')[2]}"
    return refused or [FieldViolation(name, description) for name in list(columns)[:1]]


_Fault = tuple[str, str, str]
"""Path, problem and remedy."""


def _field_faults(field_types: dict[str, Any], request: dict[str, Any]) -> Iterator[_Fault]:
    for name, field_type in field_types.items():
        if name in request:
            yield from _value_faults(field_type, request[name], json_terms.step(name))


def _value_faults(hint: Any, value: Any, path: str) -> Iterator[_Fault]:
    """Yields the faults of a value for a type hint of a class."""
    alternatives = _alternatives(hint)
    if value is None and type(None) in alternatives:
        return
    candidates = _selected([alternative for alternative in alternatives if _has_form(alternative, value)], value)
    if not candidates:
        is_other_text = isinstance(value, str) and any(get_origin(member) is Literal for member in alternatives)
        problem = "is refused" if is_other_text else f"is {json_terms.article(value)}"
        yield path, problem, f"must be {_type_name(hint)}"
        return
    by_candidate = [list(_typed_faults(candidate, value, path)) for candidate in candidates]
    if all(by_candidate):
        # The caller most likely means the type that fits down to the deepest level.
        yield from max(
            by_candidate, key=lambda triples: min(path.count(".") + path.count("[") for path, _, _ in triples)
        )


def _typed_faults(value_type: Any, value: Any, path: str) -> Iterator[_Fault]:
    arguments = get_args(value_type)
    if _is_class(value_type):
        yield from _object_faults(value_type, value, path)
    elif get_origin(value_type) is list:
        for index, item in enumerate(value):
            yield from _value_faults(arguments[0], item, f"{path}[{index}]")
    elif get_origin(value_type) is dict:
        for index, item in enumerate(value.values()):
            yield from _value_faults(arguments[1], item, f"{path}{json_terms.key_step(index)}")


def _object_faults(cls: Any, value: dict[str, Any], path: str) -> Iterator[_Fault]:
    """Yields the faults of the fields of an object; if its fields have none, the faults that the class reports."""
    has_faults = False
    for name, field_type, is_required in _fields(cls):
        field_faults: Iterator[_Fault] = iter(())
        if name in value:
            field_faults = _value_faults(field_type, value[name], f"{path}{json_terms.step(name)}")
        elif is_required:
            field_faults = iter([(path, f"lacks {name}", f"it must be {_type_name(field_type)}")])
        for fault in field_faults:
            has_faults = True
            yield fault
    if not has_faults:
        yield from _class_faults(cls, value, path)


def _fields(cls: Any) -> Iterator[tuple[str, Any, bool]]:
    """Yields name and type of each field of a class, and True if the field is required."""
    if issubclass(cls, pydantic.BaseModel):
        for name, info in cls.model_fields.items():
            yield name, info.annotation, info.is_required()
        return
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        is_required = field.default is field.default_factory is dataclasses.MISSING
        yield field.name, hints[field.name], is_required


def _class_faults(cls: Any, value: dict[str, Any], path: str) -> Iterator[_Fault]:
    """Yields the faults that a class reports when an object is made of a value."""
    try:
        if issubclass(cls, pydantic.BaseModel):
            cls(**value)
        else:
            cls.from_dict(value)
    except pydantic.ValidationError as error:
        yield from _pydantic_faults(error, value, path)
    except Exception as error:  # noqa: BLE001 - every exception is a refusal
        yield _dataclass_fault(cls, str(error), value, path)


def _pydantic_faults(error: pydantic.ValidationError, value: Any, path: str) -> Iterator[_Fault]:
    expected_types: dict[tuple[str, str], list[str]] = {}
    for problem in error.errors(include_url=False, include_input=False):
        is_missing = problem["type"] == "missing"
        item, at = _follow(problem["loc"][:-1] if is_missing else problem["loc"], value, path)
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, pydantic.ValidationError):
            yield from _pydantic_faults(cause, item, at)
        elif is_missing:
            yield at, f"lacks {problem['loc'][-1]}", "it must be there"
        elif cause is not None:
            yield at, "is refused", _without_values(str(cause), item)
        else:
            type_name = json_terms.expected_by_pydantic(problem["type"], problem["msg"])
            expected_types.setdefault((at, f"is {json_terms.article(item)}"), []).append(type_name)
    for (at, what), type_names in expected_types.items():
        yield at, what, f"must be {' or '.join(dict.fromkeys(type_names))}"


def _follow(steps: tuple[int | str, ...], value: Any, path: str) -> tuple[Any, str]:
    """Returns the value that a location of a pydantic error leads to, and its path.

    The members of a union are steps of the location too; they are skipped.
    """
    for name in steps:
        if isinstance(value, list) and isinstance(name, int) and name < len(value):
            value, path = value[name], f"{path}[{name}]"
        elif isinstance(value, dict) and isinstance(name, str) and name in value:
            value, path = value[name], f"{path}{json_terms.step(name)}"
    return value, path


def _dataclass_fault(cls: Any, text: str, value: dict[str, Any], path: str) -> _Fault:
    """Returns the fault in an error message of `mlflow.types.llm`, which begins with the field in backquotes."""
    field_types = {name: field_type for name, field_type, _ in _fields(cls)}
    field = re.match(r"(?:All items in |Items in |Expected )?`(\w+)`", text)
    if field is None or field[1] not in field_types:
        return path, "is refused", _without_values(text, value)
    name = field[1]
    at, field_type = f"{path}{json_terms.step(name)}", field_types[name]
    if text.endswith("is required"):
        if name in value:
            return at, f"is {json_terms.article(value[name])}", f"must be {_type_name(field_type)}"
        return path, f"lacks {name}", f"it must be {_type_name(field_type)}"
    if "must be of type" in text and text.startswith("`"):
        return at, f"is {json_terms.article(value[name])}", f"must be {_type_name(field_type)}"
    rule = re.split(r",? (?:got|received|Received) ", text)[0].replace(f"`{name}` ", "")
    return at, "is refused", rule[:1].lower() + rule[1:]


def _without_values(text: str, value: Any) -> str:
    """Returns a class's error message without the values that it repeats after a colon."""
    if text.startswith("Error when coercing"):
        return "it is not what MLflow's class for it takes"
    for item in value.values() if isinstance(value, dict) else ():
        repeated = item if isinstance(item, str) else repr(item)
        text = text.replace(f": {repeated}", "")
    text = re.sub(r" for \w+$", "", text.strip().rstrip(".").replace("`", "'"))
    return text[:1].lower() + text[1:]


def _alternatives(hint: Any) -> list[Any]:
    """Returns the members of a union, or the one type of another hint; `Annotated` is removed."""
    if get_origin(hint) is Annotated:
        return _alternatives(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return [alternative for member in get_args(hint) for alternative in _alternatives(member)]
    return [hint]


def _selected(candidates: list[Any], value: Any) -> list[Any]:
    """Returns the candidates that the `type` key of an object selects; all of them if it selects none."""
    if len(candidates) == 1 or not isinstance(value, dict):
        return candidates
    classes = [candidate for candidate in candidates if _is_class(candidate)]
    untyped = [cls for cls in classes if _default_type(cls) is None]
    if "type" in value:
        of_type = [cls for cls in classes if _default_type(cls) == value["type"]]
        return [*of_type, *untyped] or candidates
    typed = [cls for cls in classes if _default_type(cls) is not None]
    return typed or untyped or candidates


def _default_type(cls: Any) -> Any:
    """Returns the default of the field `type` of a class; None if it has no such field or it is required."""
    field = cls.model_fields.get("type") if issubclass(cls, pydantic.BaseModel) else None
    return None if field is None or field.is_required() else field.default


def _has_form(value_type: Any, value: Any) -> bool:
    """Returns True if a value is the JSON form of a type: an object, an array, or a scalar that the type accepts."""
    if value_type is Any:
        return True
    if _is_class(value_type) or get_origin(value_type) is dict:
        return isinstance(value, dict)
    if get_origin(value_type) is list:
        return isinstance(value, list)
    if value is None or isinstance(value, dict | list):
        return value_type in (dict, list) and isinstance(value, value_type)
    try:
        pydantic.TypeAdapter(value_type).validate_python(value)
    except pydantic.ValidationError:
        return False
    return True


def _is_class(value_type: Any) -> bool:
    return isinstance(value_type, type) and (
        issubclass(value_type, pydantic.BaseModel) or dataclasses.is_dataclass(value_type)
    )


def _type_name(hint: Any) -> str:
    """Returns the name of a type for callers who know only JSON."""
    names = []
    for alternative in _alternatives(hint):
        if get_origin(alternative) is Literal:
            names += [f'"{value}"' for value in get_args(alternative)]
        elif _is_class(alternative):
            names.append("an object")
        elif alternative is not type(None):
            names.append(_JSON_NAMES.get(get_origin(alternative) or alternative, "another value"))
    return " or ".join(dict.fromkeys(names))
