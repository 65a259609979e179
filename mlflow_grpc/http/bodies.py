"""Bodies of requests as they arrive: plain, or inflated if they are compressed.

Rule of this module: it knows bytes and no HTTP. What it keeps is counted before it is kept, and the event loop gets a
turn after each step of inflating.
"""

import asyncio
import zlib
from collections.abc import Callable

from mlflow_grpc.errors import InvalidPayload, PayloadTooLarge, UnsupportedContentType

GZIP = 16 + zlib.MAX_WBITS
"""What zlib calls a stream with a header of gzip's."""

INFLATED_BYTES, DEFLATED_BYTES = 65_536, 16_384
"""Maximum number of bytes that a step of inflating makes, and takes. Inflating 64 KB takes about 0.2 ms."""

IDENTITY, GZIP_NAMES = ("", "identity"), ("gzip", "x-gzip")

TakeRoom = Callable[[int], None]
"""Called with the number of bytes that are about to be kept; raises Overloaded if there is no room for them."""


class Body:
    """The bytes of a body that have arrived."""

    def __init__(self, max_bytes: int, take_room: TakeRoom) -> None:
        """Starts empty.

        Args:
            max_bytes: Maximum size, after inflating.
            take_room: Counts what is kept.

        """
        self._max_bytes = max_bytes
        self._take_room = take_room
        self._content = bytearray()

    async def add(self, data: bytes) -> None:
        """Adds bytes as they arrived.

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


class GzipBody(Body):
    """The bytes of a body that is compressed by gzip."""

    def __init__(self, max_bytes: int, take_room: TakeRoom) -> None:
        """Starts empty; see `Body`."""
        super().__init__(max_bytes, take_room)
        self._inflater = zlib.decompressobj(GZIP)

    async def add(self, data: bytes) -> None:
        """Inflates bytes as they arrived, in steps; raises InvalidPayload too, if they are not gzip."""
        for start in range(0, len(data), DEFLATED_BYTES):
            deflated = data[start : start + DEFLATED_BYTES]
            while deflated:
                deflated = self._inflate(deflated)
                await asyncio.sleep(0)

    def _inflate(self, deflated: bytes) -> bytes:
        """Inflates one step, and returns the bytes that are left."""
        if self._inflater.eof:  # RFC 1952: there may be several members.
            self._inflater = zlib.decompressobj(GZIP)
        try:
            # One byte more than the limit shows that the body is larger.
            self._keep(self._inflater.decompress(deflated, min(INFLATED_BYTES, self._left + 1)))
        except zlib.error:
            raise InvalidPayload("The request body is not gzip, which its content-encoding says that it is.") from None
        return self._inflater.unconsumed_tail or self._inflater.unused_data

    def complete(self) -> bytes:
        """Returns the inflated body, once everything has arrived; raises InvalidPayload if its end is missing."""
        if not self._inflater.eof:
            raise InvalidPayload("The request body ends in the middle of its gzip stream.")
        return super().complete()


def body_of(encoding: str | None, max_bytes: int, take_room: TakeRoom) -> Body:
    """Returns an empty body for a content-encoding; raises UnsupportedContentType if it is neither plain nor gzip."""
    name = (encoding or "").strip().lower()
    if name in IDENTITY:
        return Body(max_bytes, take_room)
    if name in GZIP_NAMES:
        return GzipBody(max_bytes, take_room)
    raise UnsupportedContentType("This server takes request bodies that are plain or compressed by gzip.")


def too_large(max_bytes: int) -> PayloadTooLarge:
    """Makes the error for a body that is larger than its maximum size."""
    return PayloadTooLarge(
        f"The request is larger than {max_bytes} bytes, which is the server's limit (--max-message-bytes). Send it in "
        "parts."
    )
