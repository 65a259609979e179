"""One RPC as a servicer sees it.

Rule of this module: it knows one call. Which calls there are, and how they are answered, is in `dispatch`.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from _mlflow_grpc_protocol.metadata import REQUEST_ID_KEY
from google.protobuf.message import DecodeError, Message

from mlflow_grpc.engine.progress import CallUsage, RequestProgress
from mlflow_grpc.errors import InvalidMessage, ModelFailed, ServingError, Status, UnserializableOutput, shown
from mlflow_grpc.services.ignored import IgnoredColumns

if TYPE_CHECKING:  # Generic in the type stubs only.
    RpcContext = grpc.aio.ServicerContext[Any, Any]

MAX_REQUEST_ID_CHARACTERS = 128


class CallContext:
    """One RPC as a servicer sees it, and the observer of its requests.

    `write` and `abort` are as in a gRPC context, so that a library's servicer can be given a CallContext instead.
    """

    __slots__ = (
        "_metadata",
        "_on_drain",
        "_rpc_context",
        "_shows_exceptions",
        "ignored",
        "is_overdue",
        "is_read",
        "method",
        "model",
        "request_bytes",
        "request_id",
        "response_bytes",
        "started_at",
        "usage",
    )

    def __init__(self, method: str, rpc_context: "RpcContext", *, shows_exceptions: bool = False) -> None:
        """Reads metadata and request id.

        Args:
            method: Path of the method on the wire.
            rpc_context: gRPC's context.
            shows_exceptions: True if errors tell the caller what the model raised.

        """
        self.method = method
        self.model = ""
        """Name of the model that is called, for log and errors; empty until it is resolved."""
        self.is_read = False
        """True once the request was read; for a client stream, once reading may start."""
        self.is_overdue = False
        self.ignored = IgnoredColumns()
        self.request_bytes = self.response_bytes = 0
        self.started_at = time.monotonic()
        self.usage = CallUsage()
        self._rpc_context = rpc_context
        self._shows_exceptions = shows_exceptions
        self._on_drain: Callable[[], object] | None = None
        self._metadata = {
            key: value for key, value in rpc_context.invocation_metadata() or () if isinstance(value, str)
        }
        self.request_id = _request_id(self.metadata(REQUEST_ID_KEY))

    def metadata(self, key: str) -> str | None:
        """Returns the value that the caller sent under a key, the last one if there are several."""
        return self._metadata.get(key)

    def peer(self) -> str:
        """Returns the caller's address as gRPC writes it, such as `ipv4:10.0.0.7:4242`."""
        return self._rpc_context.peer()

    def time_remaining(self) -> float | None:
        """Returns the time until the caller's deadline, in seconds; None if it has none."""
        return self._rpc_context.time_remaining()

    @property
    def deadline(self) -> float | None:
        """The caller's deadline on the clock of `time.monotonic`, in seconds; None if it has none."""
        remaining_s = self._rpc_context.time_remaining()
        return None if remaining_s is None else time.monotonic() + remaining_s

    def columns_ignored(self, names: Sequence[str]) -> None:
        """Adds names to the trailer `mlflow-ignored-columns`."""
        self.ignored.add(names)

    def request_ended(self, progress: RequestProgress) -> None:
        """Adds the times and rows of a request to the call's log line."""
        self.usage.add(progress)

    def on_drain(self, stop: Callable[[], object]) -> None:
        """Registers what stops reading further requests when the server drains."""
        self._on_drain = stop

    def drain(self) -> bool:
        """Stops reading further requests; returns False if the call does not read any."""
        if self._on_drain is None:
            return False
        self._on_drain()
        return True

    async def write(self, message: Message) -> None:
        """Sends one message of a stream; waits while the peer takes none."""
        await self._rpc_context.write(self.serialize(message))

    def serialize(self, message: Message) -> bytes:
        """Serializes a response and counts its bytes."""
        data = message.SerializeToString()
        self.response_bytes += len(data)
        return data

    def parse(self, request_class: type[Message], data: object) -> Message:
        """Parses a request and counts its bytes.

        Args:
            request_class: Class of the message.
            data: The bytes; gRPC's EOF if the caller sent no whole message.

        Raises:
            InvalidMessage: There are no bytes, or they are no such message.

        """
        if not isinstance(data, bytes):
            raise InvalidMessage(
                f"The call carries no whole message of type {request_class.DESCRIPTOR.full_name}, or one that is "
                "larger than the server takes."
            )
        self.request_bytes += len(data)
        try:
            return request_class.FromString(data)
        except DecodeError:
            raise InvalidMessage(
                f"The request is no valid protobuf message of type {request_class.DESCRIPTOR.full_name}, whose "
                "strings must be UTF-8, or is nested more than 100 messages deep, which protobuf does not read. Make "
                "it with code generated from the server's .proto file."
            ) from None

    async def abort(self, code: grpc.StatusCode, details: str = "") -> NoReturn:
        """Ends the call with an error status."""
        raise ServingError(
            details or f"{self.method} answered {code.name}.", status=Status(code.name), reason=code.name
        )

    def serving_error(self, error: BaseException) -> ServingError:
        """Returns the error for the caller; an unforeseen exception becomes its cause, for the log only."""
        if not isinstance(error, ServingError):
            hidden = ServingError(
                "The server failed to answer. What happened is in its log, under the request id of this answer."
            )
            hidden.__cause__ = error
            return hidden
        if (
            self._shows_exceptions
            and isinstance(error, ModelFailed | UnserializableOutput)
            and error.__cause__ is not None
        ):
            error.shown = shown(error.__cause__)
        return error


def _request_id(value: str | None) -> str:
    if value is not None and 0 < len(value) <= MAX_REQUEST_ID_CHARACTERS and value.isascii() and value.isprintable():
        return value
    return f"{random.getrandbits(64):016x}"
