"""Names for protobuf out of any words: identifiers, each given once in its scope.

Rule of this module: the same words in the same order get the same names, since clients are compiled against them.
"""

import keyword
import re

MESSAGE_ATTRIBUTES = frozenset({
    "ByteSize", "Clear", "ClearExtension", "ClearField", "CopyFrom", "DESCRIPTOR", "DiscardUnknownFields",
    "Extensions", "FindInitializationErrors", "FromString", "HasExtension", "HasField", "IsInitialized",
    "ListFields", "MergeFrom", "MergeFromString", "ParseFromString", "RegisterExtension",
    "SerializePartialToString", "SerializeToString", "SetInParent", "UnknownFields", "WhichOneof",
})  # fmt: skip
"""What each message has in Python, and hides a field that is called so. A list of our own, since a protobuf library
with one more must not change the names of fields."""


class Scope:
    """Gives out identifiers, none of them twice."""

    _kept: frozenset[str] = frozenset()

    def __init__(self, *taken: str) -> None:
        self._taken: set[str] = set()
        for name in taken:
            self.take(name)

    def name(self, words: str, otherwise: str) -> str:
        """An identifier for some words; `otherwise` where nothing of them is left.

        What is an identifier already is kept as it is. A second one for the same words gets a number.
        """
        made = re.sub(r"\W+", "_", words, flags=re.ASCII).strip("_") if not is_identifier(words) else words
        if not made[:1].isalpha():
            made = f"{otherwise}_{made}" if made else otherwise
        if keyword.iskeyword(made) or made in self._kept:
            made = f"{made}_field"
        candidate, number = made, 2
        while not self.is_free(candidate):
            candidate, number = f"{made}_{number}", number + 1
        self.take(candidate)
        return candidate

    def is_free(self, name: str) -> bool:
        """Whether nothing has a name."""
        return _key(name) not in self._taken

    def take(self, name: str) -> None:
        """Says that something has a name."""
        self._taken.add(_key(name))


class FieldScope(Scope):
    """The names of a message's fields, which generated Python code has beside its own, and of the types of its maps."""

    _kept = MESSAGE_ATTRIBUTES

    def __init__(self, *taken: str) -> None:
        self._fields: set[str] = set()
        self._entries: set[str] = set()
        super().__init__(*taken)

    def is_free(self, name: str) -> bool:
        """Whether neither a field nor the type of a map has a name."""
        return super().is_free(name) and name not in self._entries

    def take(self, name: str) -> None:
        """Says that a field has a name."""
        super().take(name)
        self._fields.add(name)

    def map(self, words: str, otherwise: str) -> str:
        """A name for a map; that of its type is free too, and taken."""
        made = self.name(words, otherwise)
        while not self.can_be_map(made):
            made = self.name(words, otherwise)
        self.take_entry(made)
        return made

    def can_be_map(self, name: str) -> bool:
        """Whether no field is called like the type that a map of this name has."""
        return entry_name(name) not in self._fields

    def take_entry(self, name: str) -> None:
        """Says that the field of this name is a map."""
        self._entries.add(entry_name(name))


class FileScope(Scope):
    """The names of a file: its messages and enums, and beside them the full names of the values of all its enums."""

    def __init__(self, *taken: str) -> None:
        self._symbols: set[str] = set()
        super().__init__(*taken)

    def is_free(self, name: str) -> bool:
        """Whether nothing has a name."""
        return super().is_free(name) and name not in self._symbols

    def take(self, name: str) -> None:
        """Says that a message or enum has a name."""
        super().take(name)
        self._symbols.add(name)

    def enum(self, words: str, otherwise: str) -> str:
        """A name for an enum; that of its first value is free too."""
        made = self.name(words, otherwise)
        while not self.has_room(word_name(made, UNSPECIFIED)):
            made = self.name(words, otherwise)
        self.take_word(word_name(made, UNSPECIFIED))
        return made

    def has_room(self, full: str) -> bool:
        """Whether nothing has the full name of an enum's value."""
        return full not in self._symbols

    def take_word(self, full: str) -> None:
        """Says that an enum's value has a full name."""
        self._symbols.add(full)


UNSPECIFIED = "unspecified"
"""The first value of each enum: none of its words."""


class WordScope(Scope):
    """The words of one enum, whose full names stand in the scope of the file."""

    def __init__(self, enum: str, file: FileScope) -> None:
        self._enum, self._file = enum, file
        super().__init__(UNSPECIFIED)

    def is_free(self, name: str) -> bool:
        """Whether neither this enum has a word nor the file its full name."""
        return super().is_free(name) and self._file.has_room(word_name(self._enum, name))

    def take(self, name: str) -> None:
        """Says that a value has a name."""
        super().take(name)
        self._file.take_word(word_name(self._enum, name))


def is_identifier(words: str) -> bool:
    """Whether protobuf takes some words for a name as they are, and generated Python code can spell it."""
    return bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", words)) and not keyword.iskeyword(words)


def entry_name(name: str) -> str:
    """What protoc calls the type of a map's entries, which stands beside the fields of the message."""
    return f"{''.join(part[:1].upper() + part[1:] for part in name.split('_'))}Entry"


def word_name(enum: str, name: str) -> str:
    """The full name of an enum's value, which stands in the scope of the package."""
    return f"{enum}_{name}".upper()


def _key(name: str) -> str:
    """What generated code makes of a name in the languages that drop underscores and case (JSON names, Java, Go)."""
    return name.replace("_", "").lower()
