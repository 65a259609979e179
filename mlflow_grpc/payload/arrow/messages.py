"""Arrow IPC messages: what their headers declare, and where they are in a stream.

Rule of this module: it reads only the few fields of a header that decide how much memory the message will take. Arrow
reads a message only after that. Every offset is checked, because the bytes come from anybody.
Source: https://arrow.apache.org/docs/format/Columnar.html, Message.fbs and Schema.fbs.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NoReturn

from _mlflow_grpc_protocol.arrow_ipc import CONTINUATION

from mlflow_grpc.errors import InvalidPayload

_SIZE_BYTES = 8
_PAIR = struct.Struct("<qq")


class MessageType(IntEnum):
    """Types of messages that a stream of tables has, by their numbers in Message.fbs."""

    SCHEMA = 1
    DICTIONARY = 2
    RECORD_BATCH = 3


@dataclass(frozen=True, slots=True)
class Header:
    """What a message declares."""

    message_type: MessageType
    body_bytes: int
    """Size of the body that follows the header, in bytes."""
    rows: int = 0
    """Number of rows, or of values in a dictionary."""
    read_bytes: int = 0
    """Size of all buffers once they are decompressed, in bytes."""
    arrays: int = 0
    """Number of arrays, with those within others."""
    dictionary_id: int = 0
    is_delta: bool = False
    """True if the values are added to those of an earlier dictionary."""


def read_header(flatbuffer: bytes, body: bytes | memoryview) -> Header:
    """Reads the header of a message.

    Args:
        flatbuffer: The header.
        body: The buffers that follow it; those of a compressed message begin with their sizes.

    Raises:
        InvalidPayload: The header is not valid, its type is not one of a stream of tables, or a buffer is not within
            the body.

    """
    try:
        return _header(flatbuffer, body)
    except (struct.error, ValueError):
        refuse("the header of a message is not valid")


def _header(flatbuffer: bytes, body: bytes | memoryview) -> Header:
    message = _Table(flatbuffer, _Table.position(flatbuffer, 0))
    message_type = MessageType(message.scalar("<B", 1))
    header = message.table(2)
    body_bytes = message.scalar("<q", 3)
    if message_type is MessageType.SCHEMA or header is None:
        return Header(message_type, body_bytes)
    if message_type is MessageType.RECORD_BATCH:
        return Header(message_type, body_bytes, *_sizes(header, body))
    data = header.table(1)
    if data is None:
        refuse("a dictionary has no values")
    is_delta = bool(header.scalar("<B", 2))
    return Header(message_type, body_bytes, *_sizes(data, body), header.scalar("<q", 0), is_delta)


def _sizes(batch: "_Table", body: bytes | memoryview) -> tuple[int, int, int]:
    """Returns the rows of a record batch, the size of its buffers once they are decompressed, and its arrays."""
    rows = batch.scalar("<q", 0)
    is_compressed = batch.table(3) is not None
    total = 0
    for offset, length in batch.pairs(2):
        if offset < 0 or length < 0 or offset + length > len(body):
            refuse("a buffer is not within the body of its message")
        total += _decompressed(body, offset, length) if is_compressed and length else length
    if rows < 0:
        refuse("the number of rows is negative")
    return rows, total, batch.length(1)


def _decompressed(body: bytes | memoryview, offset: int, length: int) -> int:
    """Returns the size that a compressed buffer declares; -1 in its place marks a buffer that is not compressed."""
    (declared,) = struct.unpack_from("<q", body, offset)
    size = length if declared == -1 else int(declared)
    if size < 0 or length < _SIZE_BYTES:
        refuse("a compressed buffer declares no valid size")
    return size


class _Table:
    """A table of a flatbuffer, whose offsets are checked before they are followed."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position
        self._fields = position - self._unpack("<i", position)
        self._fields_bytes = self._unpack("<H", self._fields)

    @staticmethod
    def position(data: bytes, position: int) -> int:
        """Returns the position to which an offset at a position points."""
        (offset,) = struct.unpack_from("<I", data, position)
        return position + int(offset)

    def _unpack(self, form: str, position: int) -> int:
        if position < 0:
            raise ValueError(position)
        (value,) = struct.unpack_from(form, self._data, position)
        return int(value)

    def _field(self, index: int) -> int:
        """Returns the position of a field; 0 if the table does not have it."""
        entry = 4 + 2 * index
        offset = self._unpack("<H", self._fields + entry) if entry + 2 <= self._fields_bytes else 0
        return self._position + offset if offset else 0

    def scalar(self, form: str, index: int) -> int:
        """Returns a number; 0 if the table does not have it."""
        position = self._field(index)
        return self._unpack(form, position) if position else 0

    def table(self, index: int) -> "_Table | None":
        """Returns a table within this one; None if there is none."""
        position = self._field(index)
        return _Table(self._data, self.position(self._data, position)) if position else None

    def length(self, index: int) -> int:
        """Returns the length of a vector."""
        position = self._field(index)
        return self._unpack("<I", self.position(self._data, position)) if position else 0

    def pairs(self, index: int) -> Iterator[tuple[int, int]]:
        """Yields the pairs of 64-bit integers of a vector."""
        position = self._field(index)
        if not position:
            return
        start = self.position(self._data, position)
        count = self._unpack("<I", start)
        first, last = start + 4, start + 4 + count * _PAIR.size
        if last > len(self._data):
            raise ValueError(count)
        yield from _PAIR.iter_unpack(memoryview(self._data)[first:last])


def split_stream(stream: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yields header and body of the messages of a stream.

    Raises:
        InvalidPayload: The stream ends in the middle of a message, or a header is not valid.

    """
    position, view = 0, memoryview(stream)
    while position < len(stream):
        if stream[position : position + 4] == CONTINUATION:
            position += 4
        if position + 4 > len(stream):
            refuse("the stream ends in the middle of a message")
        length = int.from_bytes(stream[position : position + 4], "little")
        position += 4
        if not length:
            return
        flatbuffer = stream[position : position + length]
        position += length
        body_bytes = _body_bytes(flatbuffer)
        if body_bytes < 0 or position + body_bytes > len(stream):
            refuse("the stream ends in the middle of a message")
        yield flatbuffer, view[position : position + body_bytes]
        position += body_bytes


def _body_bytes(flatbuffer: bytes) -> int:
    try:
        return _Table(flatbuffer, _Table.position(flatbuffer, 0)).scalar("<q", 3)
    except (struct.error, ValueError):
        refuse("the header of a message is not valid")


def refuse(problem: str) -> NoReturn:
    """Raises the error for data that is not a valid Arrow stream."""
    raise InvalidPayload(f"The Arrow data cannot be read: {problem}. Write it with an Arrow library.")
