"""The request of a batch: a message, beside fields whose bytes are ready to be sent.

Rule of this module: it puts bytes one after the other, and knows no values. On the wire, the fields of a message may
come in any order, so that bytes of fields and of the message with the other fields make up one message.
"""

from typing import Any

_LENGTH_DELIMITED = 2
"""Wire type of packed numbers, texts and messages."""


class BatchRequest:
    """The request of a batch. protobuf would copy large fields twice, into the message and out of it."""

    def __init__(self, message: Any) -> None:
        """Takes the empty message."""
        self.message = message
        """The fields that protobuf writes."""
        self._pieces: list[bytes | memoryview] = []

    def number_of(self, name: str) -> int:
        """The number of a field."""
        number: int = self.message.DESCRIPTOR.fields_by_name[name].number
        return number

    def add_field(self, name: str, *data: bytes | memoryview) -> None:
        """Adds a packed field or a message by its bytes."""
        self._pieces += header(self.number_of(name), sum(map(len, data))), *data

    def add_encoded(self, data: bytes) -> None:
        """Adds fields with their headers."""
        self._pieces.append(data)

    def SerializeToString(self) -> bytes:  # noqa: N802 - the name of protobuf's method
        """The bytes of the whole message."""
        return b"".join((*self._pieces, self.message.SerializeToString()))


def tag(number: int) -> bytes:
    """The begin of a field that has a length."""
    return varint(number << 3 | _LENGTH_DELIMITED)


def header(number: int, size: int) -> bytes:
    """What precedes the bytes of a field."""
    return tag(number) + varint(size)


def varint(value: int) -> bytes:
    """A number on the wire."""
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
