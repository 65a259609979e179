"""Request bodies while they arrive: uncompressed, or compressed with gzip.

Rule of this module: it handles bytes, not HTTP. Bytes are counted before they are kept, and the event loop gets a turn
after each step of decompression.
"""

import asyncio
import zlib
from collections.abc import Callable

from mlflow_grpc.errors import InvalidPayload, PayloadTooLarge, UnsupportedContentEncoding

GZIP = 16 + zlib.MAX_WBITS
"""zlib's `wbits` for a stream with a gzip header."""

INFLATED_BYTES, DEFLATED_BYTES = 65_536, 16_384
"""Maximum size of the output and of the input of a decompression step, which takes less than a millisecond."""

IDENTITY, GZIP_NAMES = ("", "identity"), ("gzip", "x-gzip")

TakeRoom = Callable[[int], None]
"""Called with the number of bytes that are about to be kept; raises Overloaded if there is no room for them."""


class RequestBody:
    """The bytes of a body that have arrived."""

    def __init__(self, max_bytes: int, take_room: TakeRoom) -> None:
        """Starts empty.

        Args:
            max_bytes: Maximum size, after decompression.
            take_room: Reserves room for the bytes.

        """
        self._max_bytes = max_bytes
        self._take_room = take_room
        self._content = bytearray()

    async def add(self, data: bytes) -> None:
        """Adds bytes that have arrived.

        Raises:
            PayloadTooLarge: The body is larger than its maximum size.
            Overloaded: There is no room for it.

        """
        self._keep(data)

    def complete(self) -> bytes:
        """Returns the body, once everything has arrived."""
        return bytes(self._content)

    def _keep(self, data: bytes) -> None:
        if len(data) > self._left:
            raise too_large(self._max_bytes)
        self._take_room(len(data))
        self._content += data

    @property
    def _left(self) -> int:
        return self._max_bytes - len(self._content)


class GzipRequestBody(RequestBody):
    """The decompressed bytes of a body that is compressed with gzip."""

    def __init__(self, max_bytes: int, take_room: TakeRoom) -> None:
        """Starts empty; see `RequestBody`."""
        super().__init__(max_bytes, take_room)
        self._inflater = zlib.decompressobj(GZIP)

    async def add(self, data: bytes) -> None:
        """Decompresses bytes that have arrived, in steps; raises InvalidPayload too, if they are not gzip."""
        for start in range(0, len(data), DEFLATED_BYTES):
            deflated = data[start : start + DEFLATED_BYTES]
            while deflated:
                deflated = self._inflate(deflated)
                await asyncio.sleep(0)

    def _inflate(self, deflated: bytes) -> bytes:
        """Decompresses one step, and returns the remaining input."""
        if self._inflater.eof:  # RFC 1952: there may be several members.
            self._inflater = zlib.decompressobj(GZIP)
        try:
            # One byte more than the limit shows that the body is larger.
            self._keep(self._inflater.decompress(deflated, min(INFLATED_BYTES, self._left + 1)))
        except zlib.error:
            raise InvalidPayload("The content-encoding is gzip, but the request body is not valid gzip.") from None
        return self._inflater.unconsumed_tail or self._inflater.unused_data

    def complete(self) -> bytes:
        """Returns the decompressed body, once everything has arrived; raises InvalidPayload if its end is missing."""
        if not self._inflater.eof:
            raise InvalidPayload("The request body ends in the middle of its gzip stream.")
        return super().complete()


def body_of(encoding: str | None, max_bytes: int, take_room: TakeRoom) -> RequestBody:
    """Returns an empty body for a content-encoding; raises UnsupportedContentEncoding for one that is not supported."""
    name = (encoding or "").strip().lower()
    if name in IDENTITY:
        return RequestBody(max_bytes, take_room)
    if name in GZIP_NAMES:
        return GzipRequestBody(max_bytes, take_room)
    raise UnsupportedContentEncoding("Request bodies must be uncompressed or compressed with gzip.")


def too_large(max_bytes: int) -> PayloadTooLarge:
    """Makes the error for a body that is larger than its maximum size."""
    return PayloadTooLarge(
        f"The request is larger than {max_bytes} bytes, which is the server's limit (--max-message-bytes). Send it in "
        "parts."
    )
