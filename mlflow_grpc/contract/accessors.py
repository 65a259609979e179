"""Methods that protoc generates for a single field, whose names no other field of the message can have.

Rule of this module: it has only those methods with which code of another field did not compile. protoc itself renames
fields for some others, such as `GetX` in Go and `getXCount` in Java.
"""

import re

from mlflow_grpc.contract.types import DataType, Enumeration, ListOf, MapOf, Scalar, Type

_JAVA_TEXT = ("{}Bytes",)
_JAVA_ENUM = ("{}Value", "{}ValueList", "{}ValueMap")
_JAVA_MESSAGE = ("{}Builder", "{}OrBuilder", "{}BuilderList", "{}OrBuilderList")
_JAVA_MAP = ("{}Map", "Mutable{}")


def spellings(name: str) -> frozenset[str]:
    """The names of a field in generated code: in C++, and in Java and C#."""
    return frozenset({name.lower(), _camel_case(name)})


def accessors(name: str, type_: Type | None) -> frozenset[str]:
    """The spellings that no other field of the message can have.

    They do not depend on the presence of the field, because a column is a list in the message for many rows.

    Args:
        name: Name of the field.
        type_: Type of the field; None for one that is no column.

    """
    lower, camel = name.lower(), _camel_case(name)
    return frozenset({
        f"has_{lower}", f"{lower}_size",  # C++
        f"Has{camel}", f"Clear{camel}", f"{camel}FieldNumber",  # C#
        *(pattern.format(camel) for pattern in _java_patterns(type_)),
    })  # fmt: skip


def _java_patterns(type_: Type | None) -> tuple[str, ...]:
    match type_:
        case Scalar(data_type=DataType.DATETIME):
            return _JAVA_MESSAGE
        case Scalar(data_type=DataType.STRING):
            return _JAVA_TEXT
        case Scalar():
            return ()
        case Enumeration():
            return _JAVA_ENUM
        case ListOf():  # A message for many rows has each list in a message.
            return _JAVA_MESSAGE + _java_patterns(type_.items)
        case MapOf():
            return _JAVA_MESSAGE + _JAVA_MAP + _java_patterns(type_.values)
        case _:
            return _JAVA_MESSAGE


def _camel_case(name: str) -> str:
    """Returns a name as protoc spells it in methods of Java and properties of C#."""
    return re.sub(r"(?:^|_+|(?<=[0-9]))([A-Za-z]?)", lambda match: match[1].upper(), name)
