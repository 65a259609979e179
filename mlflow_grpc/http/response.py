"""Responses with a complete body, and how they are sent.

Rule of this module: its callers decide on status and headers.
"""

import json
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Self

from starlette.types import Send

JSON, TEXT_UTF8, EVENT_STREAM = "application/json", "text/plain; charset=utf-8", "text/event-stream"

CHUNK_BYTES = 65_536
"""Size of the pieces in which a large body is sent, in bytes. At most one piece is in memory twice."""

_WEIGHT_0 = re.compile(r"q=0(\.0*)?")

Headers = list[tuple[bytes, bytes]]

CLOSE = (b"connection", b"close")
"""Header of a response after which the server closes the connection."""


def media_type_of(content_type: str) -> str:
    """Returns a content type without its parameters."""
    return content_type.partition(";")[0]


def accepted_media_types(accept: str) -> frozenset[str]:
    """Returns the media types in a header `accept`, in lower case, without those of weight 0 (RFC 9110, 12.5.1)."""
    ranges = [[part.strip() for part in item.split(";")] for item in accept.lower().split(",")]
    return frozenset(media_type for media_type, *parameters in ranges if not any(map(_WEIGHT_0.fullmatch, parameters)))


@dataclass(slots=True)
class WholeResponse:
    """A response with its complete body."""

    body: bytes
    media_type: str = JSON
    status: int = HTTPStatus.OK
    headers: Headers = field(default_factory=list)
    """Names in lower case, and values."""

    async def send(self, send: Send, *, is_complete: bool = True) -> None:
        """Sends the response; waits if the caller does not read.

        Args:
            send: Sends an event of ASGI.
            is_complete: False if another event follows, which has no bytes.

        """
        headers = [
            (b"content-type", self.media_type.encode()),
            (b"content-length", str(len(self.body)).encode()),
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        if len(self.body) <= CHUNK_BYTES:
            await send({"type": "http.response.body", "body": self.body, "more_body": not is_complete})
            return
        for start in range(0, len(self.body), CHUNK_BYTES):
            chunk = self.body[start : start + CHUNK_BYTES]
            is_last = is_complete and start + CHUNK_BYTES >= len(self.body)
            await send({"type": "http.response.body", "body": chunk, "more_body": not is_last})

    @classmethod
    def of_json(cls, value: object, status: int = HTTPStatus.OK) -> Self:
        """Returns a response with a JSON value."""
        return cls(json.dumps(value).encode(), JSON, status)
