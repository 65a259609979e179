"""Faults of a value that MLflow refuses for a type of a signature.

Rule of this module: MLflow judges. A value is divided into its components, and MLflow checks each again, until the one
that is refused by itself is found. An example is given only if MLflow accepts it in the same position. Paths hold names
from the signature and positions, never a key that the caller chose.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from mlflow.types import ParamSpec
from mlflow.types.schema import Array, Map, Object

from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.payload.mlflow_json.refusals import json_terms

Takes = Callable[[Any], bool]
"""Returns True if MLflow accepts a value in one position of the payload."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Refusal of one value in a payload."""

    path: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        """Returns a sentence for the caller."""
        return f"{self.path} {self.problem}; {self.remedy}"


def takes(value: Any, schema_type: Any, *, required: bool, checks: int = 1) -> bool:
    """Returns True if MLflow accepts a value within a column of a type.

    MLflow checks the columns of some payloads twice, and the second time it gets what the first has made of the value.
    With pandas 2 it refuses a point in time within an object only then.

    Args:
        value: The value in the payload.
        schema_type: Its type in the signature.
        required: True if the signature requires it.
        checks: Number of times that MLflow checks it.

    """
    checked = deepcopy(value)
    try:
        for _ in range(checks):
            checked = internals.enforce_type(checked, schema_type, required)
    except Exception:  # noqa: BLE001 - every exception is a refusal
        return False
    return True


def within(
    value: Any, schema_type: Any, path: str, *, required: bool, takes_here: Takes | None = None
) -> Iterator[Fault]:
    """Yields the faults of a value that is refused.

    Args:
        value: The value in the payload.
        schema_type: Its type in the signature.
        path: Its path in the payload.
        required: True if the signature requires it.
        takes_here: Returns True if MLflow accepts a replacement for the value; the default checks one within a column.

    """
    for checks in (1, 2):
        if faults := list(_component_faults(value, schema_type, path, required=required, checks=checks)):
            yield from faults
            return
    yield leaf(
        value, schema_type, path, required=required, takes_here=takes_here or _takes(schema_type, required=required)
    )


def _component_faults(value: Any, schema_type: Any, path: str, *, required: bool, checks: int) -> Iterator[Fault]:
    if isinstance(schema_type, Object) and isinstance(value, dict):
        yield from _object_faults(value, schema_type, path, checks=checks)
    elif isinstance(schema_type, Array) and isinstance(value, list):
        takes_item = _takes(schema_type, required=required, checks=checks, form=lambda item: [item])
        for index, item in enumerate(value):
            if not takes_item(item):
                yield from within(item, schema_type.dtype, f"{path}[{index}]", required=required, takes_here=takes_item)
    elif isinstance(schema_type, Map) and isinstance(value, dict):
        takes_item = _takes(schema_type.value_type, required=required, checks=checks)
        for index, (key, item) in enumerate(value.items()):
            if not takes({key: item}, schema_type, required=required, checks=checks):
                yield from within(
                    item,
                    schema_type.value_type,
                    f"{path}{json_terms.key_step(index)}",
                    required=required,
                    takes_here=takes_item,
                )


def _object_faults(value: dict[str, Any], schema_type: Object, path: str, *, checks: int) -> Iterator[Fault]:
    properties = {prop.name: prop for prop in schema_type.properties}
    for prop in schema_type.properties:
        if prop.required and prop.name not in value:
            yield lacking(prop.name, prop.dtype, path, _takes(prop.dtype, required=True, checks=checks))
    unknown = [index for index, key in enumerate(value) if key not in properties]
    if unknown:
        keys = ", ".join(json_terms.key_step(index).strip(".<>") for index in unknown[:3])
        yield Fault(
            path,
            f"has keys that the signature does not have ({keys})",
            f"leave them out; it takes {json_terms.properties(schema_type)}",
        )
    for name, item in value.items():
        if name not in properties:
            continue
        property_type, required = properties[name].dtype, properties[name].required
        takes_item = _takes(property_type, required=required, checks=checks)
        if not takes_item(item):
            where = f"{path}{json_terms.step(name)}"
            yield from within(item, property_type, where, required=required, takes_here=takes_item)


def lacking(name: str, schema_type: Any, path: str, takes_here: Takes) -> Fault:
    """Returns the fault of an object without a required property."""
    return Fault(path, f"lacks {name}", _remedy(schema_type, required=True, takes_here=takes_here, verb="it must be"))


def leaf(value: Any, schema_type: Any, path: str, *, required: bool, takes_here: Takes) -> Fault:
    """Returns the fault of a value without components, or with components that are all accepted by themselves."""
    problem = json_terms.problem(value, schema_type)
    if problem == "has a time zone" and takes_here(json_terms.example(schema_type)):
        return Fault(path, problem, f"write it without one{json_terms.such_as(json_terms.example(schema_type))}")
    if isinstance(schema_type, Object | Map) and isinstance(value, dict):
        problem = "is an object that does not fit"
    if isinstance(schema_type, Array) and isinstance(value, list):
        problem = "is an array that does not fit"
    return Fault(path, problem, _remedy(schema_type, required=required, takes_here=takes_here))


def _remedy(schema_type: Any, *, required: bool, takes_here: Takes, verb: str = "must be") -> str:
    name, example = json_terms.type_name(schema_type), json_terms.example(schema_type)
    if takes_here(example):
        return f"{verb} {name}: {json_terms.description(schema_type)}{json_terms.such_as(example)}"
    way_out = f"the model's owner must declare {json_terms.other_type(schema_type)}" if required else "leave it out"
    return f"{verb} {name}, and MLflow takes no JSON value for that here: {way_out}"


def _takes(
    schema_type: Any, *, required: bool, checks: int = 1, form: Callable[[Any], Any] = lambda value: value
) -> Takes:
    return lambda replacement: takes(form(replacement), schema_type, required=required, checks=checks)


def within_param(value: Any, spec: ParamSpec, path: str, takes_here: Takes) -> Iterator[Fault]:
    """Yields the faults of the value of a param that is refused.

    Args:
        value: The value in the payload.
        spec: The param in the signature.
        path: Path of the value in the payload.
        takes_here: Returns True if MLflow accepts a value for the param.

    """
    if spec.shape is None:
        yield from within(value, spec.dtype, path, required=True, takes_here=takes_here)
    elif isinstance(value, list) and (refused := [i for i, item in enumerate(value) if not takes_here([item])]):
        for index in refused:
            yield leaf(
                value[index],
                spec.dtype,
                f"{path}[{index}]",
                required=True,
                takes_here=lambda replacement: takes_here([replacement]),
            )
    else:
        yield leaf(value, Array(spec.dtype), path, required=True, takes_here=takes_here)
