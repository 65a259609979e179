"""A flood of calls with forged JWTs, of which no two are the same: `python -m tests.support.forged_jwts --help`.

A server that remembers refused JWTs gains nothing from its memory then, and has to check a signature for each call. The
programs that load servers (h2load) repeat one header, so this one writes the frames of HTTP/2 and the lines of HTTP/1.1
itself, from bytes that are prepared once.
"""

import argparse
import asyncio
import base64
import os
import time
from collections.abc import Callable

HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 1, 3, 4, 6, 7, 8
ACK, END_HEADERS, END_STREAM = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INITIAL_WINDOW = 65_535
MAX_STREAMS = 100
"""Maximum number of open calls of a connection."""

PAUSE_S = 0.005
"""Time between two groups of calls, in seconds."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Returns a frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def text_field(text: bytes) -> bytes:
    """Returns a text in the form of HPACK, without Huffman coding (RFC 7541, section 5.2)."""
    length, head = len(text), bytearray()
    if length < 127:
        head.append(length)
    else:
        head.append(127)
        length -= 127
        while length >= 128:
            head.append(length % 128 + 128)
            length //= 128
        head.append(length)
    return bytes(head) + text


def header(name: str, value: bytes) -> bytes:
    """Returns a header that the other side does not put into its table."""
    return b"\0" + text_field(name.encode()) + text_field(value)


def forged(start: bytes) -> bytes:
    """Returns a JWT with a random signature of ECDSA with P-256, from its first two parts."""
    return start + b"." + base64.urlsafe_b64encode(os.urandom(64)).rstrip(b"=")


class GrpcFlood(asyncio.Protocol):
    """One connection with calls of one method."""

    def __init__(self, start: bytes, path: str, message: bytes) -> None:
        self._start, self._body = start, message
        pairs = {
            ":method": b"POST",
            ":scheme": b"http",
            ":path": path.encode(),
            ":authority": b"localhost",
            "content-type": b"application/grpc",
            "te": b"trailers",
            "grpc-timeout": b"4500m",
        }
        self._headers = b"".join(header(name, value) for name, value in pairs.items())
        self._next_stream, self._open, self._window = 1, set[int](), INITIAL_WINDOW
        self._unread = b""
        self.sent = self.ended = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(PREFACE + frame(SETTINGS, 0, 0, b""))

    def send(self) -> bool:
        """Starts a call; returns False if the other side does not take one now."""
        if len(self._open) >= MAX_STREAMS or self._window < len(self._body):
            return False
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        headers = self._headers + header("authorization", b"Bearer " + forged(self._start))
        self.transport.write(frame(HEADERS, END_HEADERS, stream, headers) + frame(0, END_STREAM, stream, self._body))
        self._window -= len(self._body)
        self._open.add(stream)
        self.sent += 1
        return True

    def data_received(self, data: bytes) -> None:
        data, at = self._unread + data, 0
        while len(data) >= at + 9 and len(data) >= at + 9 + (length := int.from_bytes(data[at : at + 3], "big")):
            kind, flags, stream = data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9], "big")
            self._take(kind, flags, stream, data[at + 9 : at + 9 + length])
            at += 9 + length
        self._unread = data[at:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in (SETTINGS, PING) and not flags & ACK:
            self.transport.write(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            raise ConnectionError(payload)
        elif stream in self._open and (kind == RST_STREAM or (kind in (0, HEADERS) and flags & END_STREAM)):
            self._open.discard(stream)
            self.ended += 1


class HttpFlood(asyncio.Protocol):
    """One connection with one call at a time."""

    def __init__(self, start: bytes, path: str, body: bytes) -> None:
        self._start, self._is_open, self._unread = start, False, b""
        self._head = (
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nauthorization: Bearer "
        ).encode()
        self._end = b"\r\n\r\n" + body
        self.sent = self.ended = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self) -> bool:
        """Starts a call; returns False if one is open."""
        if self._is_open:
            return False
        self._is_open = True
        self.transport.write(self._head + forged(self._start) + self._end)
        self.sent += 1
        return True

    def data_received(self, data: bytes) -> None:
        self._unread += data
        head, blank, body = self._unread.partition(b"\r\n\r\n")
        if not blank:
            return
        assert head.split(b" ")[1] in (b"401", b"503"), head
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        if len(body) >= length:
            self._unread, self._is_open = b"", False
            self.ended += 1


async def flood(
    make: Callable[[], "GrpcFlood | HttpFlood"], address: str, connections: int, per_second: float, seconds: float
) -> tuple[int, int]:
    """Starts a number of calls per second, over several connections.

    Returns:
        The numbers of calls that were started, and that have ended.

    """
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    all_of_them = [(await loop.create_connection(make, host, int(port)))[1] for _ in range(connections)]
    began, turn, due = time.monotonic(), 0, 0
    while (passed := time.monotonic() - began) < seconds:
        due = int(passed * per_second)
        missing = due - sum(protocol.sent for protocol in all_of_them)
        for _ in range(min(missing, len(all_of_them) * MAX_STREAMS)):
            turn += 1
            all_of_them[turn % len(all_of_them)].send()
        await asyncio.sleep(PAUSE_S)
    for protocol in all_of_them:
        protocol.transport.abort()
    return sum(protocol.sent for protocol in all_of_them), sum(protocol.ended for protocol in all_of_them)


def main() -> None:
    """Floods a server, and prints how many calls were started and have ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("protocol", choices=("grpc", "http"))
    parser.add_argument("address", help="host and port")
    parser.add_argument("start", help="the first two parts of the JWTs, with the dot between them")
    parser.add_argument("body", type=argparse.FileType("rb"), help="the frame of a message, or the body over HTTP")
    parser.add_argument("--path", default="/MLflow/predict")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--per-second", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=1.0)
    chosen = parser.parse_args()
    kind = GrpcFlood if chosen.protocol == "grpc" else HttpFlood
    body = chosen.body.read()
    start = chosen.start.encode()
    sent, ended = asyncio.run(
        flood(
            lambda: kind(start, chosen.path, body),
            chosen.address,
            chosen.connections,
            chosen.per_second,
            chosen.seconds,
        )
    )
    print(f"{sent} {ended}")


if __name__ == "__main__":
    main()
