"""The frame of Arrow's messages: in a stream, and in two pieces as Flight sends them.

Rule of this module: it handles bytes and imports no Arrow library.
Source: https://arrow.apache.org/docs/format/Columnar.html, encapsulated message format.
"""

CONTINUATION = b"\xff\xff\xff\xff"
END_OF_STREAM = CONTINUATION + bytes(4)

_ALIGNMENT = 8
_PREFIX_BYTES = 8


def encapsulated(header: bytes, body: "bytes | memoryview" = b"") -> "list[bytes | memoryview]":
    """The pieces of a message in a stream: prefix, header, body and the padding of both."""
    padding = -len(header) % _ALIGNMENT
    length = (len(header) + padding).to_bytes(4, "little")
    return [CONTINUATION + length, header, bytes(padding), body, bytes(-len(body) % _ALIGNMENT)]


def pieces_of(message: memoryview) -> "tuple[bytes, memoryview]":
    """Header and body of one message that Arrow wrote for a stream."""
    end = _PREFIX_BYTES + int.from_bytes(message[4:_PREFIX_BYTES], "little")
    return bytes(message[_PREFIX_BYTES:end]), message[end:]
