"""A bare HTTP/2 peer, for requests that no gRPC library would send."""

import socket
import struct
from typing import Any

import h2.config
import h2.connection
import h2.events

PREDICT = "/MLflow/predict"


def frame(message: bytes, *, compressed: bool = False) -> bytes:
    """A gRPC length-prefixed message."""
    return struct.pack(">BI", compressed, len(message)) + message


def exchange(
    address: str,
    body: bytes | None,
    *,
    path: str = PREDICT,
    more: tuple[tuple[str, bytes], ...] = (),
    headers: dict[str, str] | None = None,
    end: bool = True,
    timeout_s: float = 20.0,
) -> dict[str, Any]:
    """Sends one request and gives `grpc-status`, `grpc-message` and how the stream ended.

    Raises:
        TimeoutError: The peer does not answer.
    """
    host, port = address.rsplit(":", 1)
    config = h2.config.H2Configuration(client_side=True, header_encoding=None, validate_outbound_headers=False)
    connection = h2.connection.H2Connection(config)
    with socket.create_connection((host, int(port)), timeout=timeout_s) as peer:
        connection.initiate_connection()
        given = headers or {":method": "POST", "content-type": "application/grpc", "te": "trailers"}
        sent = {":method": given.pop(":method"), ":scheme": "http", ":authority": "x", ":path": path, **given}
        pairs = [(key.encode(), value.encode()) for key, value in sent.items()]
        connection.send_headers(1, [*pairs, *((key.encode(), value) for key, value in more)], end_stream=body is None)
        return _converse(connection, peer, body, end=end)


def _converse(connection: Any, peer: socket.socket, body: bytes | None, *, end: bool) -> dict[str, Any]:
    rest = body or b""
    found: dict[str, Any] = {}
    pending = body is not None
    while True:
        while pending and (window := min(connection.local_flow_control_window(1), connection.max_outbound_frame_size)):
            part, rest = rest[:window], rest[window:]
            pending = bool(rest)
            connection.send_data(1, part, end_stream=end and not pending)
        peer.sendall(connection.data_to_send())
        data = peer.recv(65536)
        if not data:
            return {**found, "end": "closed"}
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                found |= {key.decode(): value.decode() for key, value in event.headers or ()}
            if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset | h2.events.ConnectionTerminated):
                return {**found, "end": type(event).__name__}
