"""One RPC from a servicer's point of view.

Rule of this module: it handles one call. `dispatch` registers and answers calls.
"""

from typing import TYPE_CHECKING, Any, Protocol

import grpc
from _mlflow_grpc_protocol.metadata import AUTHORIZATION_KEY, REQUEST_ID_KEY
from google.protobuf.message import DecodeError, Message

from mlflow_grpc.calls.call import Call
from mlflow_grpc.errors import InvalidMessage, ServingError, Status
from mlflow_grpc.telemetry.traces import ServerSpan

if TYPE_CHECKING:  # Generic in the type stubs only.
    RpcContext = grpc.aio.ServicerContext[bytes, bytes]


FAULTS_OF_SERVERS = frozenset(
    {Status.DEADLINE_EXCEEDED, Status.UNIMPLEMENTED, Status.INTERNAL, Status.UNAVAILABLE, Status.DATA_LOSS}
)
"""Statuses that make the span of a server an error, as the semantic conventions have them. The conventions have UNKNOWN
too, with which this server never answers."""


_ALTERNATIVE_NAMES = "x509_subject_alternative_name"
"""gRPC's name of the property of a connection with all subject alternative names of the client's certificate."""


class Writable(Protocol):
    """A message that can be sent."""

    def SerializeToString(self) -> bytes:
        """Returns the bytes of the message."""
        ...


class RequestReader(Protocol):
    """What reads requests in place of their class."""

    @property
    def DESCRIPTOR(self) -> Any:
        """Descriptor of the request."""

    def FromString(self, data: bytes, /) -> object:
        """Returns a request; raises DecodeError."""


RequestClass = type[Message] | RequestReader
"""The class of a request, or what reads requests in its place."""


class GrpcCall(Call):
    """An RPC from a servicer's point of view, and the observer of its requests."""

    __slots__ = ("_metadata", "_peer", "_received", "_rpc_context", "message_bytes")

    def __init__(self, method: str, rpc_context: "RpcContext", *, shows_exceptions: bool = False) -> None:
        """Reads metadata and request id.

        Args:
            method: Path of the method on the wire.
            rpc_context: gRPC's context.
            shows_exceptions: True if errors show the caller what the model raised.

        """
        self._rpc_context = rpc_context
        self.message_bytes = 0
        """Size of the message that was parsed last, in bytes."""
        self._peer = rpc_context.peer()  # Early, because it is empty once the caller has cancelled.
        self._received = rpc_context.invocation_metadata() or ()
        self._metadata = {key: value for key, value in self._received if isinstance(value, str)}
        super().__init__(method, self._metadata.get(REQUEST_ID_KEY), shows_exceptions=shows_exceptions)

    def metadata(self, key: str) -> str | None:
        """Returns the value that the caller sent under a key, the last one if there are several."""
        return self._metadata.get(key)

    def peer(self) -> str:
        """Returns the caller's address as gRPC writes it, such as `ipv4:10.0.0.7:4242`."""
        return self._peer

    def authorizations(self) -> list[str]:
        """Returns all values under `authorization`, of which a call should have one at most."""
        if AUTHORIZATION_KEY not in self._metadata:
            return []
        return [str(value) for key, value in self._received if key == AUTHORIZATION_KEY]

    def certificate_names(self) -> list[str]:
        """Returns the subject alternative names of the client's certificate; none if it has no certificate."""
        names = self._rpc_context.auth_context().get(_ALTERNATIVE_NAMES, ())
        return [name.decode(errors="replace") for name in names]

    def time_remaining(self) -> float | None:
        """Returns the time until the caller's deadline, in seconds; None if it has none."""
        return self._rpc_context.time_remaining()

    def server_span(self, code: str, error: ServingError | None) -> ServerSpan:
        """Returns the span as https://opentelemetry.io/docs/specs/semconv/rpc/grpc/ has it."""
        method = self.method.removeprefix("/")
        attributes = {
            "rpc.system.name": "grpc",
            "rpc.method": method,
            "rpc.response.status_code": code,
            **self.span_attributes,
        }
        if code not in FAULTS_OF_SERVERS:
            return ServerSpan(method, attributes)
        return ServerSpan(method, attributes, code, "" if error is None else error.logged)

    async def write(self, message: Writable) -> None:
        """Sends one message of a stream; waits while the peer takes none."""
        data = message.SerializeToString()
        self.count_response(data)
        await self._rpc_context.write(data)

    def count_response(self, data: bytes) -> None:
        """Counts a response that is about to be sent, and its bytes."""
        self.response_bytes += len(data)
        if self.method_metrics is not None:
            self.method_metrics.sent += 1

    def parse(self, request_class: RequestClass, data: object) -> object:
        """Parses a request and counts its bytes.

        Args:
            request_class: Class of the message.
            data: The bytes; gRPC's EOF if the caller sent no complete message.

        Raises:
            InvalidMessage: There are no bytes, or they are not such a message.

        """
        if not isinstance(data, bytes):
            raise InvalidMessage(
                f"The call has no complete message of type {request_class.DESCRIPTOR.full_name}, or one that "
                "exceeds the server's size limit."
            )
        self.message_bytes = len(data)
        self.request_bytes += len(data)
        if self.method_metrics is not None:
            self.method_metrics.received += 1
        try:
            return request_class.FromString(data)
        except DecodeError:
            raise InvalidMessage(
                f"The request is not a valid protobuf message of type {request_class.DESCRIPTOR.full_name}, whose "
                "strings must be UTF-8, or is nested more than 100 messages deep, which protobuf does not read. Make "
                "it with code generated from the server's .proto file."
            ) from None
