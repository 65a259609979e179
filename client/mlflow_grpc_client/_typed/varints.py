"""Numbers and texts of arrays on the wire, without a Python object for each.

Rule of this module: only callers that have numpy's arrays import it. It gives the bytes that protobuf would write.
"""

from typing import Any

import numpy as np

_MAX_BYTES = 10
"""Bytes of the longest varint."""


def packed(numbers: Any) -> bytes:
    """The bytes of a packed field of whole numbers; negative ones have the two's complement of 64 bits."""
    if not len(numbers):
        return b""
    unsigned = numbers if numbers.dtype.kind == "u" else numbers.astype(np.int64).view(np.uint64)
    if int(unsigned.max()) < 0x80:  # noqa: PLR2004 - one byte for each
        return bytes(unsigned.astype(np.uint8).tobytes())
    sizes = _sizes(unsigned)
    ends = sizes.cumsum()
    data = np.empty(int(ends[-1]), np.uint8)
    _put(data, ends - sizes, unsigned, sizes)
    return bytes(data.tobytes())


def texts(tag: bytes, offsets: Any, data: Any) -> bytes:
    """A repeated field of texts, each after its header, which begins with `tag`.

    Texts begin at `offsets` in `data`, the array of all bytes; the last offset is where the last one ends.
    """
    lengths = np.diff(offsets)
    if not len(lengths):
        return b""
    sizes = _sizes(lengths)
    ends = (len(tag) + sizes + lengths).cumsum()
    encoded = np.empty(int(ends[-1]), np.uint8)
    is_text = np.ones(len(encoded), bool)
    begins = ends - lengths - sizes - len(tag)
    for position, byte in enumerate(tag):
        encoded[begins + position] = byte
        is_text[begins + position] = False
    begins += len(tag)
    for position in range(int(sizes.max())):
        is_text[(begins + position)[sizes > position]] = False
    _put(encoded, begins, lengths, sizes)
    encoded[is_text] = data[offsets[0] : offsets[-1]]
    return bytes(encoded.tobytes())


def _sizes(numbers: Any) -> Any:
    """The number of bytes of each varint."""
    sizes = np.ones(len(numbers), np.int64)
    largest = int(numbers.max())
    for size in range(1, _MAX_BYTES):
        if largest >> 7 * size == 0:
            break
        sizes += numbers >= numbers.dtype.type(1 << 7 * size)
    return sizes


def _put(data: Any, begins: Any, numbers: Any, sizes: Any) -> None:
    """Writes varints from positions on."""
    for position in range(int(sizes.max())):
        has_byte = sizes > position
        values = numbers[has_byte] >> numbers.dtype.type(7 * position)
        more = (sizes[has_byte] > position + 1).astype(np.uint8) << 7
        data[begins[has_byte] + position] = (values & numbers.dtype.type(0x7F)).astype(np.uint8) | more
