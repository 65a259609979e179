"""Keys of fields in a lock file, which identify a field in the next version of a model.

Rule of this module: a key depends only on the model's own names and types, never on an order that may change.
"""

from collections.abc import Iterable

from mlflow_grpc.contract.lockfile.format import PARAMS_KEY
from mlflow_grpc.contract.types import Enumeration, Field, ListOf, MapOf, Record, Scalar, Type, Union


def field_keys(fields: list[Field], sole_name: str = "") -> list[str]:
    """Makes the keys of a record's fields: their names, or their indices if no field has a name.

    Args:
        fields: The fields, in their order.
        sole_name: The key of a record's only field if that has no name.

    """
    if sole_name and len(fields) == 1:
        return unique_keys([fields[0].name or sole_name])
    has_names = any(field.name for field in fields)
    return unique_keys(field.name if has_names else str(index) for index, field in enumerate(fields))


def alternative_keys(alternatives: tuple[Type, ...]) -> list[str]:
    """Makes the keys of a union's alternatives, which do not depend on their order."""
    return unique_keys(map(_describe, alternatives))


def unique_keys(names: Iterable[str]) -> list[str]:
    """Makes names unique, because MLflow allows two columns of the same name, and encodable as UTF-8."""
    keys = {PARAMS_KEY: None}
    for name in names:
        base = name.encode(errors="backslashreplace").decode()
        candidate, number = base, 2
        while candidate in keys:
            candidate, number = f"{base} ({number})", number + 1
        keys[candidate] = None
    return list(keys)[1:]


def type_word(type_: Type) -> str:
    """Returns a type as a single word."""
    match type_:
        case Scalar():
            return type_.format or type_.data_type.value
        case Enumeration() | Record():
            return type_.name
        case _:
            return type(type_).__name__.lower().removesuffix("of")


def _describe(type_: Type) -> str:
    match type_:
        case ListOf():
            return f"list of {_describe(type_.items)}"
        case MapOf():
            return f"map of {_describe(type_.values)}"
        case Union():
            return " or ".join(map(_describe, type_.alternatives))
        case _:
            return type_word(type_)
