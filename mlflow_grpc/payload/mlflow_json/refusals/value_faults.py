"""The places in a value that MLflow does not take for a type of a signature.

Rule of this module: MLflow judges. A value is taken apart, and each piece is shown to MLflow again, until one is found
that is refused for itself. An example is given only if MLflow takes it at the same place. Paths hold names from the
signature and positions, never a key that the caller chose.
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
"""Whether MLflow takes a value at one place."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One place in a payload that is refused."""

    path: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        """The sentence for the caller."""
        return f"{self.path} {self.problem}; {self.remedy}"


def takes(value: Any, of: Any, *, required: bool) -> bool:
    """Whether MLflow takes a value within a column for a type."""
    try:
        internals.enforce_type(deepcopy(value), of, required)
    except Exception:  # noqa: BLE001 - a refusal, whatever is raised
        return False
    return True


def within(value: Any, of: Any, path: str, *, required: bool, takes_here: Takes | None = None) -> Iterator[Fault]:
    """The faults of a value that is refused.

    Args:
        value: What stands in the payload.
        of: Its type in the signature.
        path: Where it stands.
        required: Whether it has to be there.
        takes_here: Whether MLflow takes another value in its place; if left out, as within a column.

    """
    has_pieces = False
    for fault in _pieces(value, of, path, required=required):
        has_pieces = True
        yield fault
    if not has_pieces:
        yield leaf(value, of, path, required=required, takes_here=takes_here or _takes(of, required=required))


def _pieces(value: Any, of: Any, path: str, *, required: bool) -> Iterator[Fault]:
    if isinstance(of, Object) and isinstance(value, dict):
        yield from _of_object(value, of, path)
    elif isinstance(of, Array) and isinstance(value, list):
        for index, item in enumerate(value):
            if not takes([item], of, required=required):
                yield from within(
                    item,
                    of.dtype,
                    f"{path}[{index}]",
                    required=required,
                    takes_here=lambda other: takes([other], of, required=required),
                )
    elif isinstance(of, Map) and isinstance(value, dict):
        for index, (key, item) in enumerate(value.items()):
            if not takes({key: item}, of, required=required):
                yield from within(item, of.value_type, f"{path}{json_terms.key_step(index)}", required=required)


def _of_object(value: dict[str, Any], of: Object, path: str) -> Iterator[Fault]:
    properties = {prop.name: prop for prop in of.properties}
    for prop in of.properties:
        if prop.required and prop.name not in value:
            yield lacking(prop.name, prop.dtype, path, _takes(prop.dtype, required=True))
    unknown = [index for index, key in enumerate(value) if key not in properties]
    if unknown:
        keys = ", ".join(json_terms.key_step(index).strip(".<>") for index in unknown[:3])
        yield Fault(
            path,
            f"has keys that the signature does not have ({keys})",
            f"leave them out; it takes {json_terms.properties(of)}",
        )
    for name, item in value.items():
        if name not in properties:
            continue
        of_name, required = properties[name].dtype, properties[name].required
        if not takes(item, of_name, required=required):
            yield from within(item, of_name, f"{path}{json_terms.step(name)}", required=required)


def lacking(name: str, of: Any, path: str, takes_here: Takes) -> Fault:
    """The fault of an object that has no value for a name."""
    return Fault(path, f"lacks {name}", _remedy(of, required=True, takes_here=takes_here, verb="it must be"))


def leaf(value: Any, of: Any, path: str, *, required: bool, takes_here: Takes) -> Fault:
    """The fault of a value that has no pieces, or none that is refused for itself."""
    problem = json_terms.problem(value, of)
    if problem == "has a time zone" and takes_here(json_terms.example(of)):
        return Fault(path, problem, f"write it without one{json_terms.such_as(json_terms.example(of))}")
    if isinstance(of, Object | Map) and isinstance(value, dict):
        problem = "is an object that does not fit"
    if isinstance(of, Array) and isinstance(value, list):
        problem = "is an array that does not fit"
    return Fault(path, problem, _remedy(of, required=required, takes_here=takes_here))


def _remedy(of: Any, *, required: bool, takes_here: Takes, verb: str = "must be") -> str:
    name, example = json_terms.type_name(of), json_terms.example(of)
    if takes_here(example):
        return f"{verb} {name}: {json_terms.description(of)}{json_terms.such_as(example)}"
    way_out = f"the model's owner must declare {json_terms.other_type(of)}" if required else "leave it out"
    return f"{verb} {name}, and MLflow takes no JSON value for that here: {way_out}"


def _takes(of: Any, *, required: bool) -> Takes:
    return lambda other: takes(other, of, required=required)


def within_param(value: Any, spec: ParamSpec, path: str, takes_here: Takes) -> Iterator[Fault]:
    """The faults of the value of a param that is refused.

    Args:
        value: What stands in the payload.
        spec: The param in the signature.
        path: Where the value stands.
        takes_here: Whether MLflow takes a value for the param.

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
                takes_here=lambda other: takes_here([other]),
            )
    else:
        yield leaf(value, Array(spec.dtype), path, required=True, takes_here=takes_here)
