"""Protobuf names for arbitrary texts: identifiers that are unique in their scope.

Rule of this module: the same texts in the same order get the same names, because clients are compiled against them.
"""

import keyword
import re
from collections.abc import Callable, Iterable

from mlflow_grpc.contract.accessors import accessors, spellings
from mlflow_grpc.contract.types import MapOf, Type

MESSAGE_ATTRIBUTES = frozenset({
    "ByteSize", "Clear", "ClearExtension", "ClearField", "CopyFrom", "DESCRIPTOR", "DiscardUnknownFields",
    "Extensions", "FindInitializationErrors", "FromString", "HasExtension", "HasField", "IsInitialized",
    "ListFields", "MergeFrom", "MergeFromString", "ParseFromString", "RegisterExtension",
    "SerializePartialToString", "SerializeToString", "SetInParent", "UnknownFields", "WhichOneof",
})  # fmt: skip
"""Attributes of every message class in Python, which hide a field of the same name. The list is written out, because a
newer protobuf library with another attribute must not rename fields."""

GENERATED_METHODS = frozenset({"defaultinstance", "descriptor", "internaldefaultinstance", "protoreflect"})
"""Methods of every message class in Java, C++ or Go, without underscores and case. Code with a field of such a name
does not compile, and protoc does not rename the field."""

MACROS = frozenset({"errno", "linux", "unix"})
"""Macros of C++ that replace the methods of a field of such a name: of its standard library, and of GCC without -std.
protoc renames fields that are keywords of C++, and not these."""

COMPANIONS = ("nulls", "null_items", "null_keys")
"""Endings of the fields that the contract may add for the nulls of a column."""

UNSPECIFIED = "unspecified"
"""Name of the first value of every enum, which the model does not have."""


class Scope:
    """A set of names in use, which makes new names that are not."""

    _reserved: frozenset[str] = frozenset()
    _reserved_keys: frozenset[str] = frozenset()

    def __init__(self, *names: str) -> None:
        self._taken: set[str] = set()
        for name in names:
            self.take(name)

    def name(self, text: str, fallback: str) -> str:
        """Makes a new identifier from a text, and takes it.

        Args:
            text: Any text. An identifier is kept unchanged, and gets a numeric suffix if it is in use.
            fallback: The identifier for a text without any usable character, and the prefix of a text that starts with
                a digit.
        """
        return self._name(text, fallback, lambda _: True)

    def _name(self, text: str, fallback: str, is_allowed: Callable[[str], bool]) -> str:
        base = _identifier(text)
        if not base[:1].isalpha():
            base = f"{fallback}_{base}" if base else fallback
        is_reserved = keyword.iskeyword(base) or base in self._reserved or _key(base) in self._reserved_keys
        if is_reserved or not is_allowed(base):
            base = f"{base}_field"
        candidate, number = base, 2
        while not (self.is_free(candidate) and is_allowed(candidate)):
            candidate, number = f"{base}_{number}", number + 1
        self.take(candidate)
        return candidate

    def is_free(self, name: str) -> bool:
        """Returns True if a name is not in use."""
        return _key(name) not in self._taken

    def take(self, name: str) -> None:
        """Marks a name as in use."""
        self._taken.add(_key(name))


class FieldScope(Scope):
    """The names of a message's fields, and of the entry types of its maps."""

    _reserved = MESSAGE_ATTRIBUTES
    _reserved_keys = GENERATED_METHODS | MACROS

    def __init__(self, *names: str) -> None:
        self._fields: set[str] = set()
        self._entries: set[str] = set()
        self._spellings: set[str] = set()
        self._accessors: set[str] = set()
        super().__init__(*names)

    def column(self, text: str, fallback: str, type_: Type | None, *, is_map: bool = False) -> str:
        """Makes a new name for a field, with which code generated for all fields compiles, and takes it.

        Args:
            text: See `name`.
            fallback: See `name`.
            type_: Type of the field; None for one that is no column.
            is_map: True if the field is a map, whose entry type needs a free name too.

        """

        def is_allowed(name: str) -> bool:
            return self._accessors.isdisjoint(spellings(name)) and self._spellings.isdisjoint(accessors(name, type_))

        name = self._name(text, fallback, is_allowed)
        while is_map and not self.can_be_map(name):
            name = self._name(text, fallback, is_allowed)
        if is_map:
            self.take_entry(name)
        self._accessors |= accessors(name, type_)
        return name

    def expect(self, columns: Iterable[tuple[str, Type | None]]) -> None:
        """Lists fields that get their names later, so that earlier ones do not get the names of their methods.

        Args:
            columns: Name of each field, as it is in the lock or else in the model, and its type.

        """
        for text, type_ in columns:
            name = _identifier(text)
            self._accessors |= accessors(name, type_)
            for companion in COMPANIONS:
                self._accessors |= accessors(f"{name}_{companion}", None)

    def is_free(self, name: str) -> bool:
        """Returns True if neither a field nor the entry type of a map has a name."""
        return super().is_free(name) and name not in self._entries

    def take(self, name: str) -> None:
        """Marks a name as that of a field."""
        super().take(name)
        self._fields.add(name)
        self._spellings |= spellings(name)

    def map(self, text: str, fallback: str, type_: MapOf) -> str:
        """Makes a new name for a map that is no column, whose entry type has a free name too, and takes both."""
        name = self.name(text, fallback)
        while not self.can_be_map(name):
            name = self.name(text, fallback)
        self.take_entry(name)
        self._accessors |= accessors(name, type_)
        return name

    def can_be_map(self, name: str) -> bool:
        """Returns True if no field has the name of a map's entry type."""
        return entry_name(name) not in self._fields

    def take_entry(self, name: str) -> None:
        """Marks the name of a map's entry type as in use."""
        self._entries.add(entry_name(name))


class FileScope(Scope):
    """The names of a file: its messages and enums, and the full names of all enum values."""

    def __init__(self, *names: str) -> None:
        self._symbols: set[str] = set()
        super().__init__(*names)

    def is_free(self, name: str) -> bool:
        """Returns True if neither a message, an enum nor an enum value has a name."""
        return super().is_free(name) and name not in self._symbols

    def take(self, name: str) -> None:
        """Marks a name as that of a message or enum."""
        super().take(name)
        self._symbols.add(name)

    def enum(self, text: str, fallback: str) -> str:
        """Makes a new name for an enum, whose first value has a free full name too, and takes both."""
        name = self.name(text, fallback)
        while not self.is_value_free(enum_value_name(name, UNSPECIFIED)):
            name = self.name(text, fallback)
        self.take_value(enum_value_name(name, UNSPECIFIED))
        return name

    def is_value_free(self, full_name: str) -> bool:
        """Returns True if the full name of an enum value is not in use."""
        return full_name not in self._symbols

    def take_value(self, full_name: str) -> None:
        """Marks the full name of an enum value as in use."""
        self._symbols.add(full_name)


class EnumScope(Scope):
    """The names of an enum's values. Their full names are in the scope of the file, as protobuf's rules demand."""

    def __init__(self, enum: str, file: FileScope) -> None:
        self._enum, self._file = enum, file
        super().__init__(UNSPECIFIED)

    def is_free(self, name: str) -> bool:
        """Returns True if no value of the enum has a name, and nothing in the file has the full name."""
        return super().is_free(name) and self._file.is_value_free(enum_value_name(self._enum, name))

    def take(self, name: str) -> None:
        """Marks a name as that of a value."""
        super().take(name)
        self._file.take_value(enum_value_name(self._enum, name))


def is_identifier(text: str) -> bool:
    """Returns True if a text is a valid name for protobuf and can be spelled in generated Python code."""
    return bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text)) and not keyword.iskeyword(text)


def entry_name(name: str) -> str:
    """The name that protoc gives to the entry type of a map, which is in the scope of the message's fields."""
    return f"{''.join(word[:1].upper() + word[1:] for word in name.split('_'))}Entry"


def enum_value_name(enum: str, name: str) -> str:
    """The full name of an enum value, which is in the scope of the package."""
    return f"{enum}_{name}".upper()


def _identifier(text: str) -> str:
    """Returns a text without the characters that a name cannot have. It may be empty, or start with a digit."""
    return text if is_identifier(text) else re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_")


def _key(name: str) -> str:
    """Returns a name as it appears in languages that drop underscores and case (JSON names, Java, Go)."""
    return name.replace("_", "").lower()
