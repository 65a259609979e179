"""Connections of the HTTP port, with limits that uvicorn does not have.

Rule of this module: uvicorn parses and writes HTTP. This module only decides when a connection is too slow, sends too
many headers or trailers, or exceeds the number of connections.
"""

import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mlflow_grpc.http.guard import CERTIFICATE_KEY, alternative_names
from mlflow_grpc.http.upgrades import RequestParser

MAX_HEADER_BYTES = 65_536
"""Maximum size of a request line with its headers, and of the trailers of a request; httptools has no limit."""

FIELD_OVERHEAD_BYTES = 32
"""Bytes that each header counts in addition to its name and value, as in HTTP/2 (RFC 9113, section 6.5.2), because
tiny headers take as much of the event loop's time as longer ones."""

TOO_LARGE = "The headers or trailers of the request are larger than 64 KiB."

HEADER_TIMEOUT_S = 10.0
"""Maximum time for the headers of a request to arrive, in seconds, and for the first byte of a new connection."""

KEEP_ALIVE_S = 75
"""Time after which an idle connection is closed, in seconds. It exceeds the idle timeout of common load balancers
(60 s), which would otherwise send requests on connections that are closing."""

TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
    b"retry-after: 1\r\ncontent-length: 52\r\n\r\nThe server has as many HTTP connections as it takes.\n"[:-1]
)


class Connection(HttpToolsProtocol):
    """One connection.

    Headers and trailers are counted when the parser reports them. The parser reports complete ones only, so data that
    leads to no report counts too.
    """

    max_connections = 0
    """Maximum number of open connections; set by the listener."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = RequestParser(self)
        self._waiting_since: float | None = time.monotonic()  # Since then, headers are awaited.
        self._header_bytes = 0
        self._may_be_in_trailers = False  # True from a chunk size until the chunk or the request goes on.
        self._certificate_names: list[str] = []
        self._reports = 0  # Number of the callbacks that the parser has called.

    def connection_made(self, transport: Any) -> None:
        """Accepts a new connection, or refuses it if there are too many."""
        super().connection_made(transport)
        if (ssl_object := transport.get_extra_info("ssl_object")) is not None:
            self._certificate_names = alternative_names(ssl_object.getpeercert())
        if len(self.connections) > self.max_connections:
            self.connections.discard(self)
            transport.write(TOO_MANY)
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Parses data that has arrived."""
        if self.transport.is_closing():
            return
        if self._waiting_since is None and self.cycle.response_complete:
            self._waiting_since = time.monotonic()  # It may be an empty line, which does not begin a request.
        reports = self._reports
        super().data_received(data)
        if self._reports == reports and (self._waiting_since is not None or self._may_be_in_trailers):
            self._header_bytes += len(data)
        if self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response(TOO_LARGE)

    def send_400_response(self, msg: str) -> None:
        """Refuses what has arrived, and closes the connection."""
        super().send_400_response(TOO_LARGE if self._header_bytes > MAX_HEADER_BYTES else msg)

    def on_message_begin(self) -> None:
        """Starts to count the headers of a request, which may arrive while the previous request is being answered."""
        self._restart()
        if self._waiting_since is None:
            self._waiting_since = time.monotonic()
        super().on_message_begin()
        if self._certificate_names:
            self.scope[CERTIFICATE_KEY] = self._certificate_names  # type: ignore[literal-required]

    def on_url(self, url: bytes) -> None:
        """Counts a piece of the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Counts a header or trailer. Trailers are dropped, since they must not be merged into headers (RFC 9110)."""
        self._count(len(name) + len(value) + FIELD_OVERHEAD_BYTES)
        if self._waiting_since is not None:
            super().on_header(name, value)

    def _count(self, size_bytes: int) -> None:
        """Counts bytes of headers; an exception ends the parsing, so that the data behind them costs no time."""
        self._reports += 1
        self._header_bytes += size_bytes
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError(TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Starts a request whose headers are complete; not yet one that asks for another protocol."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("This server is not a proxy.")
            return
        self._waiting_since = None
        self._reports += 1
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Notes the size of a chunk; trailers follow that of the last one."""
        self._restart()
        self._may_be_in_trailers = True

    def on_body(self, body: bytes) -> None:
        """Takes a piece of the body."""
        self._reports += 1
        self._may_be_in_trailers = False
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Ends a request."""
        if self.parser.should_upgrade():
            return
        self._restart()
        self._may_be_in_trailers = False
        super().on_message_complete()

    def _restart(self) -> None:
        """Counts from zero."""
        self._reports += 1
        self._header_bytes = 0

    def close_if_overdue(self, now: float) -> None:
        """Closes the connection if it waits too long for headers; `now` is on the clock of `time.monotonic`."""
        if self._waiting_since is None:
            return
        if self.flow.read_paused:  # By uvicorn, until it has answered the requests before: nothing can arrive.
            self._waiting_since = now
        elif now - self._waiting_since > HEADER_TIMEOUT_S:
            self.transport.close()
