"""The places in a request to a chat API of MLflow that MLflow's own classes refuse.

Rule of this module: MLflow's classes judge, message by message and tool by tool: a request is taken apart until one is
found that is refused for itself. Of what a class says only its own words are repeated, without the values in them. Of
the types that a value may have, only the one is told of that its `type` or its form chooses.
"""

import dataclasses
import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pydantic
from mlflow.types.agent import ChatAgentMessage, ChatContext
from mlflow.types.llm import ChatMessage, ChatParams

from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.payload.mlflow_json.refusals import json_terms

_WORDS: dict[Any, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "an array",
    dict: "an object",
    Any: "any JSON value",
}
"""What a value of a type is in JSON."""


@dataclasses.dataclass(frozen=True, slots=True)
class ChatFault:
    """One place that is refused."""

    field: str
    """The field of the request that it is in; empty for the request itself."""
    path: str
    """The way on from there."""
    problem: str
    remedy: str


def faults(api: internals.ChatApi, request: dict[str, Any]) -> Iterator[ChatFault]:
    """The faults of a request that the classes of an API have refused.

    Args:
        api: Which one.
        request: As JSON has it.

    """
    match api:
        case internals.ChatApi.CHAT_MODEL:
            rest = {name: value for name, value in request.items() if name != "messages"}
            found = [*_of({"messages": list[ChatMessage]}, request), *_of_class(ChatParams, rest, "")]
        case internals.ChatApi.CHAT_AGENT:
            found = [*_of({"messages": list[ChatAgentMessage], "context": ChatContext}, request)]
        case internals.ChatApi.RESPONSES_AGENT:
            found = [*_of_class(internals.ResponsesAgentRequest, request, "")]
    for path, problem, remedy in found:
        steps = re.match(r"\.(\w+)(.*)", path, re.DOTALL)
        yield ChatFault(steps[1], steps[2], problem, remedy) if steps else ChatFault("", "", problem, remedy)


_Fault = tuple[str, str, str]
"""Path, problem and remedy."""


def _of(kinds: dict[str, Any], request: dict[str, Any]) -> Iterator[_Fault]:
    for name, kind in kinds.items():
        if name in request:
            yield from _within(kind, request[name], json_terms.step(name))


def _within(kind: Any, value: Any, path: str) -> Iterator[_Fault]:
    """The faults of a value for a type that a class says."""
    kinds = _alternatives(kind)
    if value is None and type(None) in kinds:
        return
    fitting = _chosen([each for each in kinds if _has_form(each, value)], value)
    if not fitting:
        is_other_word = isinstance(value, str) and any(get_origin(each) is Literal for each in kinds)
        problem = "is refused" if is_other_word else f"is {json_terms.article(value)}"
        yield path, problem, f"must be {_words(kind)}"
        return
    found = [list(_of_kind(each, value, path)) for each in fitting]
    if all(found):
        # The one that is refused for what stands deepest is the one that is meant.
        yield from max(found, key=lambda each: min(_depth(path) for path, _, _ in each))


def _of_kind(kind: Any, value: Any, path: str) -> Iterator[_Fault]:
    inner = get_args(kind)
    if _is_class(kind):
        yield from _of_class(kind, value, path)
    elif get_origin(kind) is list:
        for place, item in enumerate(value):
            yield from _within(inner[0], item, f"{path}[{place}]")
    elif get_origin(kind) is dict:
        for place, item in enumerate(value.values()):
            yield from _within(inner[1], item, f"{path}{json_terms.key_step(place)}")


def _of_class(of: Any, value: dict[str, Any], path: str) -> Iterator[_Fault]:
    """The faults of an object for a class: those of its fields; if there is none, what the class says of the whole."""
    has_faults = False
    for name, kind, is_required in _fields(of):
        faults_of_field: Iterator[_Fault] = iter(())
        if name in value:
            faults_of_field = _within(kind, value[name], f"{path}{json_terms.step(name)}")
        elif is_required:
            faults_of_field = iter([(path, f"lacks {name}", f"it must be {_words(kind)}")])
        for fault in faults_of_field:
            has_faults = True
            yield fault
    if not has_faults:
        yield from _said_by_class(of, value, path)


def _fields(of: Any) -> Iterator[tuple[str, Any, bool]]:
    """Names and types of the fields of a class, and whether they have to be there."""
    if issubclass(of, pydantic.BaseModel):
        for name, info in of.model_fields.items():
            yield name, info.annotation, info.is_required()
        return
    kinds = get_type_hints(of)
    for each in dataclasses.fields(of):
        is_required = each.default is each.default_factory is dataclasses.MISSING
        yield each.name, kinds[each.name], is_required


def _said_by_class(of: Any, value: dict[str, Any], path: str) -> Iterator[_Fault]:
    try:
        if issubclass(of, pydantic.BaseModel):
            of(**value)
        else:
            of.from_dict(value)
    except pydantic.ValidationError as error:
        yield from _said_by_pydantic(error, value, path)
    except Exception as error:  # noqa: BLE001 - a refusal, whatever is raised
        yield _said_by_dataclass(of, str(error), value, path)


def _said_by_pydantic(error: pydantic.ValidationError, value: Any, path: str) -> Iterator[_Fault]:
    wanted: dict[tuple[str, str], list[str]] = {}
    for problem in error.errors(include_url=False, include_input=False):
        is_missing = problem["type"] == "missing"
        item, at = _follow(problem["loc"][:-1] if is_missing else problem["loc"], value, path)
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, pydantic.ValidationError):
            yield from _said_by_pydantic(cause, item, at)
        elif is_missing:
            yield at, f"lacks {problem['loc'][-1]}", "it must be there"
        elif cause is not None:
            yield at, "is refused", _without_values(str(cause), item)
        else:
            words = json_terms.wanted(problem["type"], problem["msg"])
            wanted.setdefault((at, f"is {json_terms.article(item)}"), []).append(words)
    for (at, what), words_of_types in wanted.items():
        yield at, what, f"must be {' or '.join(dict.fromkeys(words_of_types))}"


def _follow(steps: tuple[int | str, ...], value: Any, path: str) -> tuple[Any, str]:
    """The value at the end of some steps of pydantic's, and its path; the types of a union are steps too."""
    for name in steps:
        if isinstance(value, list) and isinstance(name, int) and name < len(value):
            value, path = value[name], f"{path}[{name}]"
        elif isinstance(value, dict) and isinstance(name, str) and name in value:
            value, path = value[name], f"{path}{json_terms.step(name)}"
    return value, path


def _said_by_dataclass(of: Any, text: str, value: dict[str, Any], path: str) -> _Fault:
    """What `mlflow.types.llm` says, whose texts have the field in backquotes at their start."""
    kinds = {name: kind for name, kind, _ in _fields(of)}
    field = re.match(r"(?:All items in |Items in |Expected )?`(\w+)`", text)
    if field is None or field[1] not in kinds:
        return path, "is refused", _without_values(text, value)
    name = field[1]
    at, kind = f"{path}{json_terms.step(name)}", kinds[name]
    if text.endswith("is required"):
        if name in value:
            return at, f"is {json_terms.article(value[name])}", f"must be {_words(kind)}"
        return path, f"lacks {name}", f"it must be {_words(kind)}"
    if "must be of type" in text and text.startswith("`"):
        return at, f"is {json_terms.article(value[name])}", f"must be {_words(kind)}"
    rule = re.split(r",? (?:got|received|Received) ", text)[0].replace(f"`{name}` ", "")
    return at, "is refused", rule[:1].lower() + rule[1:]


def _without_values(text: str, value: Any) -> str:
    """What a class says, without the values that it repeats behind a colon."""
    if text.startswith("Error when coercing"):
        return "it is not what MLflow's class for it takes"
    for each in value.values() if isinstance(value, dict) else ():
        kept = each if isinstance(each, str) else repr(each)
        text = text.replace(f": {kept}", "")
    text = re.sub(r" for \w+$", "", text.strip().rstrip(".").replace("`", "'"))
    return text[:1].lower() + text[1:]


def _alternatives(kind: Any) -> list[Any]:
    """The types of a union; of Annotated the type that it is of."""
    if get_origin(kind) is Annotated:
        return _alternatives(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [each for part in get_args(kind) for each in _alternatives(part)]
    return [kind]


def _chosen(kinds: list[Any], value: Any) -> list[Any]:
    """The types that the `type` of an object chooses; all of them if it chooses none."""
    if len(kinds) == 1 or not isinstance(value, dict):
        return kinds
    of_type = [each for each in kinds if _is_class(each) and _default_type(each) == value.get("type")]
    if "type" not in value:
        of_type = [each for each in kinds if _is_class(each) and _default_type(each) is not None]
    others = [each for each in kinds if _is_class(each) and _default_type(each) is None]
    if of_type and "type" in value:
        return [*of_type, *others]
    return of_type or others or kinds


def _default_type(of: Any) -> Any:
    """The `type` that objects of a class have if they do not say one; None if they have to."""
    field = of.model_fields.get("type") if issubclass(of, pydantic.BaseModel) else None
    return None if field is None or field.is_required() else field.default


def _has_form(kind: Any, value: Any) -> bool:
    """Whether a value is of the JSON type for a type; a scalar, whether the type takes it."""
    if kind is Any:
        return True
    if _is_class(kind) or get_origin(kind) is dict:
        return isinstance(value, dict)
    if get_origin(kind) is list:
        return isinstance(value, list)
    if value is None or isinstance(value, dict | list):
        return kind in (dict, list) and isinstance(value, kind)
    try:
        pydantic.TypeAdapter(kind).validate_python(value)
    except pydantic.ValidationError:
        return False
    return True


def _is_class(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, pydantic.BaseModel) or dataclasses.is_dataclass(kind))


def _depth(path: str) -> int:
    return path.count(".") + path.count("[")


def _words(kind: Any) -> str:
    """A type in JSON's terms."""
    said = []
    for each in _alternatives(kind):
        if get_origin(each) is Literal:
            said += [f'"{value}"' for value in get_args(each)]
        elif each is not type(None):
            said.append("an object" if _is_class(each) else _WORDS.get(get_origin(each) or each, "another value"))
    return " or ".join(dict.fromkeys(said))
