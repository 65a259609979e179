"""The frame of Arrow's messages: in a stream, and in two pieces as Flight sends them.

Rule of this module: it imports no Arrow library.
Source: https://arrow.apache.org/docs/format/Columnar.html, encapsulated message format.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

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


def within(batch: Any, max_bytes: int, size_of: Callable[[Any], int]) -> Iterator[Any]:
    """Yields the rows of a record batch in as few batches of a limited size as there can be, all about as large.

    Args:
        batch: The batch.
        max_bytes: Maximum size of a batch as a message, in bytes. A single row may exceed it.
        size_of: Returns the size of a batch as a message.

    """
    count = min(math.ceil(size_of(batch) / max(max_bytes, 1)), batch.num_rows)
    if count <= 1:
        yield batch
        return
    rows = math.ceil(batch.num_rows / count)
    for start in range(0, batch.num_rows, rows):
        yield from within(batch.slice(start, rows), max_bytes, size_of)
