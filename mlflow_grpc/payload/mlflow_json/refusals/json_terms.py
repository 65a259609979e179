"""What values and MLflow's types are called to somebody who has only JSON.

Rule of this module: it holds words and examples. Nothing here looks at a payload but at the types in it; whether an
example is taken at some place is for MLflow to say.
"""

import datetime
import json
import re
from typing import Any

from mlflow.types import ColSpec, DataType, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object

MAX_EXAMPLE = 80
"""The longest example in characters; a longer one would push what is wrong out of the error."""

FIRST_YEAR, LAST_YEAR = 1678, 2261
"""Between which pandas has all times in nanoseconds."""

_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}

_WORDS = {
    DataType.boolean: ("true or false", "booleans", True),
    DataType.integer: ("a whole number from -2147483648 to 2147483647", "whole numbers", 3),
    DataType.long: ("a whole number of 64 bits", "whole numbers", 3),
    DataType.float: ("a number", "numbers", 1.5),
    DataType.double: ("a number", "numbers", 1.5),
    DataType.string: ("text in quotes", "strings", "text"),
    DataType.binary: ("bytes as a string in base64", "strings in base64", "AQID"),
    DataType.datetime: ("a date and time as a string", "dates and times as strings", "2020-02-29T12:00:00"),
}
"""For each type what one value is, what several are, and an example."""

_WIDER = {DataType.integer: "long", DataType.float: "double", DataType.datetime: "string", DataType.binary: "string"}
"""For types that MLflow takes from JSON in columns alone, those that it takes within arrays and objects too."""

_WORDS_OF_ERRORS = {
    "string": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "an array",
    "dict": "an object",
    "model": "an object",
    "none": "null",
}
"""What a value is to be, by what pydantic's types of errors begin with."""

_BITS = {DataType.integer: 32, DataType.long: 64}


def wanted(error_type: str, message: str) -> str:
    """What an error of pydantic's says that a value is to be."""
    return _WORDS_OF_ERRORS.get(error_type.partition("_")[0]) or message.removeprefix("Input should be ")


def json_type(value: Any) -> str:
    """What JSON calls the type of a value."""
    return _JSON_TYPES.get(type(value), "null")


def article(value: Any) -> str:
    """What a value is, with the article."""
    name = "whole number" if type(value) is int else json_type(value)
    return name if name == "null" else f"{'an' if name[0] in 'ao' else 'a'} {name}"


def step(name: str) -> str:
    """What stands in a path for a name in the model's signature."""
    return f".{name}" if name.isidentifier() else f"[{json.dumps(name, ensure_ascii=False)}]"


def key_step(index: int) -> str:
    """What stands in a path for a key that the caller chose, by its place from 0."""
    number = index + 1
    ending = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")  # noqa: PLR2004
    return f".<{number}{ending} key>"


def type_name(of: Any) -> str:
    """What MLflow calls a type; objects without their properties."""
    if isinstance(of, DataType):
        return of.name
    if isinstance(of, Array):
        return f"Array({type_name(of.dtype)})"
    if isinstance(of, Map):
        return f"Map({type_name(of.value_type)})"
    return "Object" if isinstance(of, Object) else "Any"


def description(of: Any) -> str:
    """What a value of a type is in JSON."""
    if isinstance(of, DataType):
        return _WORDS[of][0]
    if isinstance(of, Array):
        return f"an array of {_several(of.dtype)}"
    if isinstance(of, Map):
        return f"an object whose values are {_several(of.value_type)}"
    if isinstance(of, Object):
        return f"an object with {properties(of)}"
    return "any JSON value"


def properties(of: Object) -> str:
    """The properties of an object, with a mark at those that may be left out."""
    return ", ".join(prop.name if prop.required else f"{prop.name} (optional)" for prop in of.properties)


def _several(of: Any) -> str:
    if isinstance(of, DataType):
        return _WORDS[of][1]
    if isinstance(of, Array):
        return f"arrays of {_several(of.dtype)}"
    return "any JSON values" if isinstance(of, AnyType) else f"objects ({description(of).removeprefix('an object ')})"


def expected(spec: ColSpec | TensorSpec) -> str:
    """What stands in the signature for a column or tensor, and what that is in JSON."""
    if isinstance(spec, TensorSpec):
        return tensor(spec)
    required = "required" if spec.required else "optional"
    return f"{type_name(spec.type)} ({required}): {description(spec.type)}"


def tensor(spec: TensorSpec) -> str:
    """A tensor as nested arrays."""
    shape = tuple(int(size) for size in spec.shape)
    free = " (-1 is any length)" if -1 in shape else ""
    return f"{spec.type.name} tensor of shape {shape}: nested arrays{free}"


def example(of: Any) -> Any:
    """A value of a type as JSON has it."""
    if isinstance(of, DataType):
        return _WORDS[of][2]
    if isinstance(of, Array):
        return [example(of.dtype)]
    if isinstance(of, Map):
        return {"key": example(of.value_type)}
    if isinstance(of, Object):
        return {prop.name: example(prop.dtype) for prop in of.properties if prop.required}
    return "text"


def such_as(value: Any) -> str:
    """The words that give an example; none if it is too long to help, or as short as what it is an example of."""
    text = json.dumps(value, ensure_ascii=False)
    return f", such as {text}" if len(text) <= MAX_EXAMPLE and value is not True else ""


def other_type(of: Any) -> str:
    """A type that the model's owner may declare, if JSON cannot say this one."""
    return _WIDER.get(of, "another type") if isinstance(of, DataType) else "another type"


def problem(value: Any, of: Any) -> str:
    """What is wrong with a value that is refused for a type of scalars, without the value itself."""
    if isinstance(of, DataType) and value is not None and not isinstance(value, bool):
        if isinstance(value, str) and of == DataType.datetime:
            return _time_problem(value)
        if isinstance(value, str) and of == DataType.binary:
            return "is a string that is not base64"
        if isinstance(value, int) and of in _BITS:
            bits = _BITS[of]
            if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
                return f"is a whole number that does not fit into {bits} bits"
        if isinstance(value, float) and of in _BITS:
            return "is a number with a decimal point"
        if isinstance(value, int) and of in (DataType.double, DataType.float):
            return "is a number without a decimal point"
    return f"is {article(value)}"


def _time_problem(text: str) -> str:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        # More digits than microseconds, which pandas reads and Python does not.
        return (
            "has a time zone" if re.search(r"\d(Z|[+-]\d\d:?\d\d)$", text) else "is a string that is no date and time"
        )
    if moment.tzinfo is not None:
        return "has a time zone"
    return "is a string" if FIRST_YEAR <= moment.year <= LAST_YEAR else "is a date and time before 1678 or after 2261"
