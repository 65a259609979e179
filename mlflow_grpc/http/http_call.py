"""One HTTP request, as passed to an endpoint.

Rule of this module: it handles a single call: its headers, its deadline and its body. `dispatch` answers the call.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from _mlflow_grpc_protocol.metadata import REQUEST_ID_KEY
from starlette.types import Receive, Scope

from mlflow_grpc.calls.call import Call
from mlflow_grpc.errors import CallerDeadlineExceeded, InvalidPayload, ServingError
from mlflow_grpc.http.arriving_bodies import ArrivingBody
from mlflow_grpc.http.guard import peer_of
from mlflow_grpc.http.request_body import body_of, too_large
from mlflow_grpc.telemetry.traces import AttributeValue, ServerSpan

TIMEOUT_HEADER = "x-request-timeout-s"
"""Header with the time that the caller waits for an answer, in seconds."""

TEMPLATE_KEY = "mlflow_grpc.route"
"""Key of the scope with the template of the route's path, such as `/models/{name}/invocations`."""


class HttpCall(Call):
    """One HTTP request, and the observer of its model requests."""

    __slots__ = ("_deadline", "_error_status", "_headers", "_receive", "_room", "path", "scope", "status")

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
        self._headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        self._deadline: float | None = None
        self._room: ArrivingBody | None = None
        super().__init__(
            f"{scope['method']} {self.path}", self.metadata(REQUEST_ID_KEY), shows_exceptions=shows_exceptions
        )

    def metadata(self, key: str) -> str | None:
        """Returns the value of a header; the first one if there are several, as MLflow's server reads them."""
        value = self._headers.get(key.encode())
        return None if value is None else value.decode("latin-1")

    def peer(self) -> str:
        """Returns the caller's address as gRPC writes it, such as `ipv4:10.0.0.7:4242`."""
        return peer_of(self.scope)

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
            attributes |= _address(host)
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

    async def read(self, max_bytes: int, room: ArrivingBody) -> bytes:
        """Returns the body, decompressed if necessary.

        Args:
            max_bytes: Maximum size, both before and after decompression.
            room: Room for the bytes in memory, held until `free_room` or the end of the call.

        Raises:
            PayloadTooLarge: The body is larger. It is not read to its end.
            UnsupportedContentEncoding: Its compression is not gzip.
            InvalidPayload: It is not a gzip stream.
            Overloaded: There is no room for it.
            CallerDeadlineExceeded: It did not arrive before the caller's deadline.
            CancelledError: The caller has left.

        """
        try:
            async with asyncio.timeout(self.time_remaining()):
                return await self._read(max_bytes, room)
        except TimeoutError:
            raise CallerDeadlineExceeded("The request did not arrive before the caller's deadline.") from None

    async def _read(self, max_bytes: int, room: ArrivingBody) -> bytes:
        length = self.metadata("content-length")
        if length is not None and int(length) > max_bytes:
            raise too_large(max_bytes)
        self._room = room
        body = body_of(self.metadata("content-encoding"), max_bytes, room.take)
        while True:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise asyncio.CancelledError
            self.request_bytes += len(event["body"])
            self.is_read = not event["more_body"]
            await body.add(event["body"])
            if self.is_read:
                return body.complete()

    def free_room(self) -> None:
        """Frees the room of the body; called when the engine gets the body, because it has a limit of its own."""
        if self._room is not None:
            self._room.free()

    async def discard_body(self, *, max_bytes: int, timeout_s: float) -> None:
        """Reads the rest of the body and discards it.

        Args:
            max_bytes: Number of bytes after which it returns.
            timeout_s: Time after which it returns, in seconds.

        """
        discarded_bytes = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self.is_read and discarded_bytes < max_bytes:
                    event = await self._receive()
                    if event["type"] == "http.disconnect":
                        return
                    discarded_bytes += len(event["body"])
                    self.is_read = not event["more_body"]

    async def discard_arrived(self, *, max_bytes: int) -> None:
        """Discards a small body that has already arrived, without waiting for one that has not.

        A caller that waits for status 100 has sent none, and should not send one in vain.

        Args:
            max_bytes: Maximum size of a body that is discarded.

        """
        length = self.metadata("content-length")
        if length is not None and int(length) <= max_bytes and self.metadata("expect") is None:
            await self.discard_body(max_bytes=max_bytes, timeout_s=0)

    async def wait_until_left(self) -> None:
        """Returns once the caller has left; called after the body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _address(host: str) -> dict[str, AttributeValue]:
    """Returns the attributes of the header `host`; none of a header that is not a host and port."""
    attributes: dict[str, AttributeValue] = {}
    try:
        parts = urlsplit(f"//{host}")
        attributes["server.address"] = parts.hostname or ""
        if parts.port is not None:
            attributes["server.port"] = parts.port
    except ValueError:
        return attributes  # A host with an invalid port still has an address.
    return attributes
