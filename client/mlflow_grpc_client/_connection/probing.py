"""The protocol of a server that closes gRPC's connections.

Rule of this module: it runs after a call has failed, only to explain the error. It opens a connection in cleartext and
one in TLS as any client does, sends no call, and ends in bounded time.
"""

import socket
import ssl
from enum import Enum, auto

STEP_TIMEOUT_S = 1.0
"""Timeout for each step of a connection in seconds."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""The preface of HTTP/2 and an empty SETTINGS frame (RFC 9113, 3.4)."""
_SETTINGS = 4
_FRAME_HEADER_BYTES = 9
_TLS_RECORD_TYPES = (0x15, 0x16)
"""Alert and handshake (RFC 8446, 5.1)."""


class Protocol(Enum):
    """The protocol of a server."""

    CLEARTEXT = auto()
    """HTTP/2 without TLS."""
    TLS = auto()
    UNKNOWN = auto()


def protocol_of(host: str, port: int) -> Protocol:
    """The protocol of a server, as far as its first bytes show it."""
    header = _first_bytes(host, port, _PREFACE, _FRAME_HEADER_BYTES)
    if len(header) == _FRAME_HEADER_BYTES and header[3] == _SETTINGS:
        return Protocol.CLEARTEXT
    record = _first_bytes(host, port, _client_hello(), 1)
    return Protocol.TLS if record and record[0] in _TLS_RECORD_TYPES else Protocol.UNKNOWN


def _client_hello() -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:  # The hello is written, and the handshake waits for the server's.
        return outgoing.read()
    raise AssertionError("a handshake of TLS needs a server")


def _first_bytes(host: str, port: int, hello: bytes, size: int) -> bytes:
    """The first bytes that a server sends; fewer if it closes the connection or takes too long."""
    data = b""
    try:
        with socket.create_connection((host, port), STEP_TIMEOUT_S) as connection:
            connection.sendall(hello)
            while len(data) < size and (received := connection.recv(size - len(data))):
                data += received
    except OSError:
        return data
    return data
