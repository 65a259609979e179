"""A bare HTTP/2 peer, for requests that no gRPC library would send."""

import socket
import struct
from typing import Any, Self

import h2.config
import h2.connection
import h2.events
import h2.settings

PREDICT = "/MLflow/predict"

FRAME_HEADER_BYTES, GOAWAY = 9, 7
"""Bytes before the payload of a frame, and a type of frame (RFC 9113)."""


def frame(message: bytes, *, compressed: bool = False) -> bytes:
    """Makes a length-prefixed gRPC message."""
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
    """Sends one request; returns `grpc-status`, `grpc-message` and the end of the stream.

    Raises:
        TimeoutError: The peer does not answer.
    """
    host, port = address.rsplit(":", 1)
    config = h2.config.H2Configuration(client_side=True, header_encoding=None, validate_outbound_headers=False)
    connection = h2.connection.H2Connection(config)
    with socket.create_connection((host, int(port)), timeout=timeout_s) as peer:
        connection.initiate_connection()
        fields = headers or {":method": "POST", "content-type": "application/grpc", "te": "trailers"}
        sent = {":method": fields.pop(":method"), ":scheme": "http", ":authority": "x", ":path": path, **fields}
        pairs = [(key.encode(), value.encode()) for key, value in sent.items()]
        connection.send_headers(1, [*pairs, *((key.encode(), value) for key, value in more)], end_stream=body is None)
        return _converse(connection, peer, body, end=end)


def _converse(connection: Any, peer: socket.socket, body: bytes | None, *, end: bool) -> dict[str, Any]:
    remaining = body or b""
    answer: dict[str, Any] = {}
    pending = body is not None
    while True:
        while pending and (window := min(connection.local_flow_control_window(1), connection.max_outbound_frame_size)):
            chunk, remaining = remaining[:window], remaining[window:]
            pending = bool(remaining)
            connection.send_data(1, chunk, end_stream=end and not pending)
        peer.sendall(connection.data_to_send())
        data = peer.recv(65536)
        if not data:
            return {**answer, "end": "closed"}
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                answer |= {key.decode(): value.decode() for key, value in event.headers or ()}
            if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset | h2.events.ConnectionTerminated):
                return {**answer, "end": type(event).__name__}


class Connection:
    """A connection with any number of calls.

    It reads 64 KiB of each response, or as much as `window_bytes` says, and more only after `take_all`.
    """

    def __init__(self, address: str, timeout_s: float = 20.0, *, window_bytes: int | None = None) -> None:
        host, port = address.rsplit(":", 1)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self._connection = h2.connection.H2Connection(config)
        if window_bytes is not None:
            initial = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window_bytes}
            self._connection.local_settings = h2.settings.Settings(client=True, initial_values=initial)
        self._peer = socket.create_connection((host, int(port)), timeout=timeout_s)
        self._connection.initiate_connection()
        self._received = b""
        self._is_closed = False
        self.statuses: dict[int, str] = {}
        """`grpc-status`, or the end without one, by stream number."""
        self._has_goaway = False

    def call(self, message: bytes | None, path: str = PREDICT, *, then: bytes | None = None) -> None:
        """Sends a complete call, of one message or two, or without a message only its beginning."""
        stream = self._connection.get_next_available_stream_id()
        self._connection.send_headers(
            stream,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", "x"),
                (":path", path),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
            ],
        )
        if message is not None:
            data = frame(message) + (b"" if then is None else frame(then))
            self._connection.send_data(stream, data, end_stream=True)
        self._peer.sendall(self._connection.data_to_send())

    def take_all(self) -> None:
        """Reads all responses completely from now on."""
        for stream in (None, *self._open_streams()):
            self._connection.increment_flow_control_window(2**30, stream)

    def _open_streams(self) -> list[int]:
        last = self._connection.get_next_available_stream_id()
        return [stream for stream in range(1, last, 2) if stream not in self.statuses]

    def wait_until_read(self) -> None:
        """Waits until the peer has read everything that was sent, because it answers pings in order."""
        self._connection.ping(b"all read")
        while not any(isinstance(event, h2.events.PingAckReceived) for event in self._events()):
            assert not self._is_closed

    def wait_for_statuses(self, count: int) -> None:
        """Waits until that many calls have ended, or the connection has."""
        while len(self.statuses) < count and not self._is_closed:
            self._events()

    def wait_for_goaway(self) -> None:
        """Waits until GOAWAY has arrived. Calls can be made as before, as if it had not been read."""
        while not self._has_goaway:
            self._events()
            assert not self._is_closed

    def close(self) -> None:
        """Closes the connection."""
        self._peer.close()

    def _events(self) -> list[Any]:
        self._peer.sendall(self._connection.data_to_send())
        data = self._peer.recv(65536)
        self._is_closed = not data
        events = self._connection.receive_data(self._frames(data))
        for event in events:
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                headers: dict[Any, Any] = dict(event.headers or ())
                status = headers.get("grpc-status")
                if status is not None:
                    self.statuses[event.stream_id] = str(status)
            elif isinstance(event, h2.events.StreamReset):
                self.statuses.setdefault(event.stream_id, f"reset {event.error_code}")
        return list(events)

    def _frames(self, data: bytes) -> bytes:
        """Returns the complete frames without GOAWAY, after which h2 accepts no frame, although responses follow it."""
        self._received += data
        frames = b""
        while len(self._received) >= (end := FRAME_HEADER_BYTES + int.from_bytes(self._received[:3], "big")):
            if self._received[3] == GOAWAY:
                self._has_goaway = True
            else:
                frames += self._received[:end]
            self._received = self._received[end:]
        return frames

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
