"""What a server speaks that closes the connections of gRPC.

Rule of this module: it is for the words of an error alone, after a call has failed. It says hello in the clear and in
TLS as any client does, sends no call, and gives up in bounded time.
"""

import socket
import ssl
from enum import Enum, auto

LIMIT_S = 1.0
"""For each step of a connection, in seconds."""

_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""The preface of HTTP/2 and an empty frame of settings (RFC 9113, 3.4)."""
_SETTINGS = 4
_FRAME_HEAD = 9
_TLS_RECORDS = (0x15, 0x16)
"""Alerts and handshakes (RFC 8446, 5.1)."""


class Talk(Enum):
    """What a server speaks."""

    CLEAR = auto()
    """HTTP/2 in the clear."""
    TLS = auto()
    UNKNOWN = auto()


def talk_of(host: str, port: int) -> Talk:
    """What a server speaks, as far as it can be told from how it answers."""
    head = _answer(host, port, _HELLO, _FRAME_HEAD)
    if len(head) == _FRAME_HEAD and head[3] == _SETTINGS:
        return Talk.CLEAR
    first = _answer(host, port, _client_hello(), 1)
    return Talk.TLS if first and first[0] in _TLS_RECORDS else Talk.UNKNOWN


def _client_hello() -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:  # It waits for the server's, and has written its own.
        return outgoing.read()
    raise AssertionError("a handshake of TLS needs a server")


def _answer(host: str, port: int, hello: bytes, size: int) -> bytes:
    """The first bytes that a server answers; fewer, if it closes the connection or takes too long."""
    found = b""
    try:
        with socket.create_connection((host, port), LIMIT_S) as connection:
            connection.sendall(hello)
            while len(found) < size and (more := connection.recv(size - len(found))):
                found += more
    except OSError:
        return found
    return found
