"""Names, descriptions and examples of values and MLflow types for callers who know only JSON.

Rule of this module: it looks at the types of values only. Whether an example is accepted in some position is decided by
MLflow.
"""

import datetime
import json
import math
import re
from typing import Any

from mlflow.types import ColSpec, DataType, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object

MAX_EXAMPLE = 80
"""Maximum characters of an example, because a longer one would hide the fault."""

FIRST_YEAR, LAST_YEAR = 1678, 2261
"""Years between which pandas can represent all times in nanoseconds."""

_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}

_DESCRIPTIONS = {
    DataType.boolean: ("true or false", "booleans", True),
    DataType.integer: ("a whole number from -2147483648 to 2147483647", "whole numbers", 3),
    DataType.long: ("a whole number of 64 bits", "whole numbers", 3),
    DataType.float: ("a number", "numbers", 1.5),
    DataType.double: ("a number", "numbers", 1.5),
    DataType.string: ("text in quotes", "strings", "text"),
    DataType.binary: ("bytes as a string in base64", "strings in base64", "AQID"),
    DataType.datetime: ("a date and time as a string", "dates and times as strings", "2020-02-29T12:00:00"),
}
"""For each type the description of one value, of several values, and an example."""

_WIDER = {DataType.integer: "long", DataType.float: "double", DataType.datetime: "string", DataType.binary: "string"}
"""Replacements that MLflow accepts within arrays and objects, for types that it accepts from JSON in columns only."""

_NAMES_BY_ERROR = {
    "string": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "an array",
    "dict": "an object",
    "model": "an object",
    "none": "null",
}
"""Description of the expected value by the first word of a pydantic error type."""

_BITS = {DataType.integer: 32, DataType.long: 64}


def expected_by_pydantic(error_type: str, message: str) -> str:
    """Returns a description of the value that an error of pydantic expects."""
    return _NAMES_BY_ERROR.get(error_type.partition("_")[0]) or message.removeprefix("Input should be ")


def json_type(value: Any) -> str:
    """Returns the name of a value's JSON type."""
    return _JSON_TYPES.get(type(value), "null")


def article(value: Any) -> str:
    """Returns the name of a value's JSON type with its article."""
    name = "whole number" if type(value) is int else json_type(value)
    return name if name == "null" else f"{'an' if name[0] in 'ao' else 'a'} {name}"


def step(name: str) -> str:
    """Returns the path step of a name in the model's signature."""
    return f".{name}" if name.isidentifier() else f"[{json.dumps(name, ensure_ascii=False)}]"


def key_step(index: int) -> str:
    """Returns the path step of a key that the caller chose, by its index."""
    number = index + 1
    ending = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")  # noqa: PLR2004
    return f".<{number}{ending} key>"


def type_name(schema_type: Any) -> str:
    """Returns MLflow's name of a type; objects without their properties."""
    if isinstance(schema_type, DataType):
        return schema_type.name
    if isinstance(schema_type, Array):
        return f"Array({type_name(schema_type.dtype)})"
    if isinstance(schema_type, Map):
        return f"Map({type_name(schema_type.value_type)})"
    return "Object" if isinstance(schema_type, Object) else "Any"


def description(schema_type: Any) -> str:
    """Returns a description of the JSON values of a type."""
    if isinstance(schema_type, DataType):
        return _DESCRIPTIONS[schema_type][0]
    if isinstance(schema_type, Array):
        return f"an array of {_several(schema_type.dtype)}"
    if isinstance(schema_type, Map):
        return f"an object whose values are {_several(schema_type.value_type)}"
    if isinstance(schema_type, Object):
        return f"an object with {properties(schema_type)}"
    return "any JSON value"


def properties(schema_type: Object) -> str:
    """Returns a list of the properties of an object, in which the optional ones are marked."""
    return ", ".join(prop.name if prop.required else f"{prop.name} (optional)" for prop in schema_type.properties)


def _several(schema_type: Any) -> str:
    if isinstance(schema_type, DataType):
        return _DESCRIPTIONS[schema_type][1]
    if isinstance(schema_type, Array):
        return f"arrays of {_several(schema_type.dtype)}"
    if isinstance(schema_type, AnyType):
        return "any JSON values"
    return f"objects ({description(schema_type).removeprefix('an object ')})"


def expected(spec: ColSpec | TensorSpec) -> str:
    """Returns the type of a column or tensor in the signature, and a description of its JSON values."""
    if isinstance(spec, TensorSpec):
        return tensor(spec)
    required = "required" if spec.required else "optional"
    return f"{type_name(spec.type)} ({required}): {description(spec.type)}"


def tensor(spec: TensorSpec) -> str:
    """Returns a description of a tensor as nested arrays."""
    shape = tuple(int(size) for size in spec.shape)
    free = " (-1 is any length)" if -1 in shape else ""
    return f"{spec.type.name} tensor of shape {shape}: nested arrays{free}"


def example(schema_type: Any) -> Any:
    """Returns an example of a type as a JSON value."""
    if isinstance(schema_type, DataType):
        return _DESCRIPTIONS[schema_type][2]
    if isinstance(schema_type, Array):
        return [example(schema_type.dtype)]
    if isinstance(schema_type, Map):
        return {"key": example(schema_type.value_type)}
    if isinstance(schema_type, Object):
        return {prop.name: example(prop.dtype) for prop in schema_type.properties if prop.required}
    return "text"


def such_as(value: Any) -> str:
    """Returns text with an example; empty if the example is too long, or `true`, which the description contains."""
    text = json.dumps(value, ensure_ascii=False)
    return f", such as {text}" if len(text) <= MAX_EXAMPLE and value is not True else ""


def other_type(schema_type: Any) -> str:
    """Returns a type that the model's owner may declare in place of one that MLflow does not accept from JSON."""
    return _WIDER.get(schema_type, "another type") if isinstance(schema_type, DataType) else "another type"


def problem(value: Any, schema_type: Any) -> str:
    """Returns the fault of a value that is refused for a scalar type; the text does not contain the value."""
    if isinstance(schema_type, DataType) and value is not None and not isinstance(value, bool):
        if isinstance(value, str) and schema_type == DataType.datetime:
            return _time_problem(value)
        if isinstance(value, str) and schema_type == DataType.binary:
            return "is a string that is not base64"
        if isinstance(value, int) and schema_type in _BITS:
            bits = _BITS[schema_type]
            if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
                return f"is a whole number that does not fit into {bits} bits"
        if isinstance(value, float) and schema_type in _BITS:
            return "is a number with a decimal point" if math.isfinite(value) else f"is {json.dumps(value)}"
        if isinstance(value, int) and schema_type in (DataType.double, DataType.float):
            return "is a number without a decimal point"
    return f"is {article(value)}"


def _time_problem(text: str) -> str:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        # Python does not parse digits after the microseconds, and pandas does.
        has_zone = re.search(r"\d(Z|[+-]\d\d:?\d\d)$", text)
        return "has a time zone" if has_zone else "is a string that is not a date and time"
    if moment.tzinfo is not None:
        return "has a time zone"
    return "is a string" if FIRST_YEAR <= moment.year <= LAST_YEAR else "is a date and time before 1678 or after 2261"
