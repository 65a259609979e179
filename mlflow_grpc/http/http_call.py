"""One HTTP request, as passed to an endpoint.

Rule of this module: it handles a single call: its headers, its deadline and its body. `dispatch` answers the call.
"""

import asyncio
import math
import time
import zlib
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import SplitResult, urlsplit

from _mlflow_grpc_protocol.metadata import REQUEST_ID_KEY
from starlette.types import Receive, Scope

from mlflow_grpc.calls.call import Call
from mlflow_grpc.errors import InvalidPayload, PayloadTooLarge, ServingError, UnsupportedContentType
from mlflow_grpc.telemetry.traces import AttributeValue, ServerSpan

TIMEOUT_HEADER = "x-request-timeout-s"
"""Header with the time that the caller waits for an answer, in seconds."""

GZIP = 16 + zlib.MAX_WBITS
"""zlib's `wbits` for a stream with a gzip header."""

TEMPLATE_KEY = "mlflow_grpc.route"
"""Key of the scope with the template of the route's path, such as `/models/{name}/invocations`."""

IDENTITY, GZIP_NAMES = ("", "identity"), ("gzip", "x-gzip")


class HttpCall(Call):
    """One HTTP request, and the observer of its model requests."""

    __slots__ = ("_deadline", "_error_status", "_headers", "_receive", "path", "scope", "status")

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        *,
        error_status: Callable[[ServingError], int],
        shows_exceptions: bool = False,
    ) -> None:
        """Reads the request id.

        Args:
            scope: ASGI's connection scope.
            receive: Returns the next event of the request.
            error_status: Returns the status of the response for an error.
            shows_exceptions: True if errors show the caller what the model raised.

        """
        self._error_status = error_status
        self.status: int | None = None
        """Status of the response; None for an error, and until the status is known."""
        self.scope = scope
        self.path: str = scope["path"]
        self._receive = receive
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._deadline: float | None = None
        super().__init__(
            f"{scope['method']} {self.path}", self.metadata(REQUEST_ID_KEY), shows_exceptions=shows_exceptions
        )

    def metadata(self, key: str) -> str | None:
        """Returns the value of a header, the last one if there are several."""
        value = self._headers.get(key.encode())
        return None if value is None else value.decode("latin-1")

    def peer(self) -> str:
        """Returns the caller's address as gRPC writes it, such as `ipv4:10.0.0.7:4242`."""
        client = self.scope.get("client")
        if client is None:
            return ""
        host, port = client
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def start(self) -> None:
        """Starts the caller's time limit.

        Raises:
            InvalidPayload: The header with the time limit has no valid value.

        """
        text = self.metadata(TIMEOUT_HEADER)
        if text is None:
            return
        try:
            timeout_s = float(text)
        except ValueError:
            timeout_s = math.nan
        if not 0 < timeout_s < math.inf:
            raise InvalidPayload(
                f"The header {TIMEOUT_HEADER} must be a number of seconds above 0, such as 2.5.",
                reason="INVALID_PARAMETER_VALUE",
            )
        self._deadline = time.monotonic() + timeout_s

    def time_remaining(self) -> float | None:
        """Returns the time until the caller's deadline, in seconds; None if it has none."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def server_span(self, code: str, error: ServingError | None) -> ServerSpan:
        """Returns the span, following https://opentelemetry.io/docs/specs/semconv/http/http-spans/."""
        method, route = self.scope["method"], self.scope.get(TEMPLATE_KEY, "")
        attributes: dict[str, AttributeValue] = {
            "http.request.method": method,
            "http.route": route,
            "network.protocol.version": self.scope.get("http_version", ""),
            "url.path": self.path,
            "url.scheme": self.scope["scheme"],
            **self.span_attributes,
        }
        if (host := self.metadata("host")) is not None:
            parts = urlsplit(f"//{host}")
            attributes["server.address"] = parts.hostname or ""
            if (port := _port(parts)) is not None:
                attributes["server.port"] = port
        if (agent := self.metadata("user-agent")) is not None:
            attributes["user_agent.original"] = agent
        name = f"{method} {route}".rstrip()
        error_status = None if error is None else self._error_status(error)
        status = error_status if self.status is None else self.status
        if status is not None:  # It is unknown if the caller has left before the response.
            attributes["http.response.status_code"] = status
        if error is None or error_status is None or error_status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return ServerSpan(name, attributes)
        # An error after the first event of a stream follows status 200.
        return ServerSpan(name, attributes, str(error_status) if self.status is None else code, error.logged)

    async def read(self, max_bytes: int, take_room: Callable[[int], None]) -> bytes:
        """Returns the body, decompressed if necessary.

        Args:
            max_bytes: Maximum size, both before and after decompression.
            take_room: Called with the size of each piece that arrives; raises Overloaded if there is no room for it.

        Raises:
            PayloadTooLarge: The body is larger. It is not read to its end.
            UnsupportedContentType: Its compression is not gzip.
            InvalidPayload: It is not a gzip stream.
            Overloaded: There is no room for it.
            CancelledError: The caller has left.

        """
        length = self.metadata("content-length")
        if length is not None and int(length) > max_bytes:
            raise _too_large(max_bytes)
        body = _body(self.metadata("content-encoding"), max_bytes)
        while True:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise asyncio.CancelledError
            self.request_bytes += len(event["body"])
            take_room(len(event["body"]))
            body.add(event["body"])
            if not event["more_body"]:
                self.is_read = True
                return body.whole()

    async def wait_until_left(self) -> None:
        """Returns once the caller has left; called after the body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:  # The caller's header has no number there.
        return None


def _body(encoding: str | None, max_bytes: int) -> "_Body":
    name = (encoding or "").strip().lower()
    if name in IDENTITY:
        return _Body(max_bytes)
    if name in GZIP_NAMES:
        return _GzipBody(max_bytes)
    raise UnsupportedContentType("This server accepts request bodies that are uncompressed or compressed with gzip.")


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The request is larger than {max_bytes} bytes, which is the server's limit (--max-message-bytes). Send it in "
        "parts."
    )


class _Body:
    """The parts of a body that have arrived."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []

    def add(self, data: bytes) -> None:
        """Adds bytes that have arrived."""
        self._left -= len(data)
        if self._left < 0:
            raise _too_large(self._max_bytes)
        self._parts.append(data)

    def whole(self) -> bytes:
        """Returns the body, once everything has arrived."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)


class _GzipBody(_Body):
    """The parts of a body that is compressed with gzip."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._inflater = zlib.decompressobj(GZIP)

    def add(self, data: bytes) -> None:
        """Decompresses bytes that have arrived, up to the limit."""
        try:
            while data:
                if self._inflater.eof:  # RFC 1952: there may be several members.
                    self._inflater = zlib.decompressobj(GZIP)
                super().add(self._inflater.decompress(data, self._left + 1))
                data = self._inflater.unconsumed_tail or self._inflater.unused_data
        except zlib.error:
            raise InvalidPayload("The content-encoding is gzip, but the request body is not valid gzip.") from None

    def whole(self) -> bytes:
        """Returns the decompressed body, once everything has arrived."""
        if not self._inflater.eof:
            raise InvalidPayload("The request body ends in the middle of its gzip stream.")
        return super().whole()
