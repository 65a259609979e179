"""FlightData messages whose bodies are not copied.

Rule of this module: protobuf reads and writes everything but the body, which is most of the bytes. The published
Flight.proto recommends this for `data_body`.
"""

from typing import Any, ClassVar

from google.protobuf.message import DecodeError

ENVELOPE_BYTES = 64
"""Size of the tags and lengths around the header and the body of a message, at most."""

_BODY_NUMBER = 1000
_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
"""Types of fields on the wire."""
_FIXED_BYTES = {_I64: 8, _I32: 4}
_MAX_VARINT_BYTES = 10


class FlightData:
    """A message of an exchange, with the parts of a protobuf message's interface that a stream uses.

    Subclasses set the class of protobuf's messages, because server and client have descriptors of their own.
    """

    MESSAGE: ClassVar[Any]

    __slots__ = ("_fields", "data_body")

    def __init__(self, fields: Any, data_body: "bytes | memoryview" = b"") -> None:
        """Makes a message.

        Args:
            fields: The message without its body.
            data_body: The body.

        """
        self._fields = fields
        self.data_body = data_body

    @classmethod
    def FromString(cls, data: bytes) -> "FlightData":  # noqa: N802 - the name of protobuf's method
        """Reads a message.

        Raises:
            DecodeError: The bytes are no such message.

        """
        view, position, fields, body = memoryview(data), 0, b"", memoryview(b"")
        while position < len(data):
            tag, end = _varint(data, position)
            start, end = _extent(data, end, tag & 7)
            if tag >> 3 == _BODY_NUMBER and tag & 7 == _LEN:
                body = view[start:end]
            else:
                fields += view[position:end]
            position = end
        return cls(cls.MESSAGE.FromString(fields), body)

    def SerializeToString(self) -> bytes:  # noqa: N802 - the name of protobuf's method
        """Returns the bytes of the message."""
        if not self.data_body:
            serialized: bytes = self._fields.SerializeToString()
            return serialized
        prefix = _encoded(_BODY_NUMBER << 3 | _LEN) + _encoded(len(self.data_body))
        return b"".join((self._fields.SerializeToString(), prefix, self.data_body))

    @property
    def flight_descriptor(self) -> Any:
        """The model that the exchange is with; in the first message."""
        return self._fields.flight_descriptor

    @property
    def data_header(self) -> bytes:
        """The header of an IPC message; empty if there is none."""
        header: bytes = self._fields.data_header
        return header

    @property
    def app_metadata(self) -> bytes:
        """What the caller gets back with the answer."""
        metadata: bytes = self._fields.app_metadata
        return metadata


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Returns an integer and the position after it."""
    value = 0
    for index, byte in enumerate(data[position : position + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 - the bit that announces another byte
            return value, position + index + 1
    raise DecodeError("a number has no end")


def _extent(data: bytes, position: int, wire_type: int) -> tuple[int, int]:
    """Returns the positions at which a field's value starts and ends."""
    if wire_type == _VARINT:
        end = _varint(data, position)[1]
    elif wire_type == _LEN:
        length, position = _varint(data, position)
        end = position + length
    elif wire_type in _FIXED_BYTES:
        end = position + _FIXED_BYTES[wire_type]
    else:
        raise DecodeError("a field has an unknown type")
    if end > len(data):
        raise DecodeError("a field ends after the message")
    return position, end


def _encoded(value: int) -> bytes:
    """Returns an integer as protobuf writes it."""
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - the largest number of one byte
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
