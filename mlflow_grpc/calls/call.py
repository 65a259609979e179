"""One call of any protocol.

Rule of this module: it handles a single call. `open_calls` has the registry of calls, and how they end.
"""

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from urllib.parse import unquote

from mlflow_grpc.access.permits import Permit
from mlflow_grpc.calls.ignored_columns import IgnoredColumns
from mlflow_grpc.engine.progress import CallUsage, RequestProgress
from mlflow_grpc.errors import ModelFailed, ServingError, UnserializableOutput, shown
from mlflow_grpc.telemetry.calls import GrpcMethod
from mlflow_grpc.telemetry.traces import AttributeValue, CallTrace, ServerSpan

MAX_REQUEST_ID_CHARACTERS = 128


class Call(ABC):
    """One call, and the observer of its requests."""

    __slots__ = (
        "_on_drain",
        "_shows_exceptions",
        "ignored",
        "is_overdue",
        "is_read",
        "is_shadowed",
        "method",
        "method_metrics",
        "model",
        "names_version",
        "permit",
        "request_bytes",
        "request_id",
        "response_bytes",
        "started_at",
        "trace",
        "usage",
        "version_trailers",
    )

    def __init__(self, method: str, request_id: str | None, *, shows_exceptions: bool = False) -> None:
        """Starts the call's clock.

        Args:
            method: The called method, for the log.
            request_id: Id from the caller; if it is missing or invalid, the call gets a random id.
            shows_exceptions: True if errors show the caller what the model raised.

        """
        self.method = method
        self.model = ""
        """Name of the called model, for log and errors; empty until it is resolved."""
        self.permit: Permit | None = None
        """Who calls, and what it may do; None if the server does not ask, or until it knows."""
        self.version_trailers: tuple[tuple[str, str], ...] = ()
        """Trailer with the version of the called model; empty if it has none, and until it is resolved."""
        self.is_read = False
        """True once the request was read; for a stream of requests, once reading may start."""
        self.is_overdue = False
        self.names_version = False
        """True if the path or the message of the call names a version; metadata may name one, too."""
        self.is_shadowed = False
        """True if a challenger runs behind the call."""
        self.method_metrics: GrpcMethod | None = None
        """Metrics that count the call; None if it is not a gRPC call or there are no metrics."""
        self.trace: CallTrace | None = None
        """The trace of the call; None if it is not traced."""
        self.ignored = IgnoredColumns()
        self.request_bytes = self.response_bytes = 0
        self.started_at = time.monotonic()
        self.usage = CallUsage()
        self.request_id = _request_id(request_id)
        self._shows_exceptions = shows_exceptions
        self._on_drain: Callable[[], object] | None = None

    @abstractmethod
    def metadata(self, key: str) -> str | None:
        """Returns the value that the caller sent under a key in lower case, the last one if there are several."""

    @abstractmethod
    def peer(self) -> str:
        """Returns the caller's address as gRPC writes it, such as `ipv4:10.0.0.7:4242`."""

    @abstractmethod
    def time_remaining(self) -> float | None:
        """Returns the time until the caller's deadline, in seconds; None if it has none."""

    @abstractmethod
    def server_span(self, code: str, error: ServingError | None) -> ServerSpan:
        """Returns the span of the call, following the semantic conventions of its protocol.

        Args:
            code: Name of the gRPC status with which the call ended.
            error: The error that the caller got; None if the caller got an answer, or has left.

        """

    @property
    def span_attributes(self) -> dict[str, AttributeValue]:
        """The attributes of a call's span that do not depend on the protocol."""
        attributes: dict[str, AttributeValue] = {"mlflow_grpc.request_id": self.request_id}
        if self.permit is not None:
            attributes["enduser.id"] = self.permit.caller
        if self.model:
            attributes["mlflow_grpc.model"] = self.model
        if self.usage.rows is not None:
            attributes["mlflow_grpc.rows"] = self.usage.rows
        if (address := address_of(self.peer())) is not None:
            attributes["network.peer.address"], attributes["network.peer.port"] = address
        return attributes

    @property
    def deadline(self) -> float | None:
        """The caller's deadline on the clock of `time.monotonic`, in seconds; None if it has none."""
        remaining_s = self.time_remaining()
        return None if remaining_s is None else time.monotonic() + remaining_s

    def columns_ignored(self, names: Sequence[str]) -> None:
        """Adds names to those that the answer reports as ignored."""
        self.ignored.add(names)

    def request_ended(self, progress: RequestProgress) -> None:
        """Adds the times and rows of a request to the call's log line, and its waiting to the call's trace."""
        self.usage.add(progress)
        if self.trace is not None:
            self.trace.add("waiting", progress.created_at, progress.started_at or time.monotonic())

    def on_drain(self, stop: Callable[[], object]) -> None:
        """Registers a function that stops reading further requests when the server drains."""
        self._on_drain = stop

    def drain(self) -> bool:
        """Stops reading further requests; returns False if the call does not read any."""
        if self._on_drain is None:
            return False
        self._on_drain()
        return True

    def serving_error(self, error: BaseException) -> ServingError:
        """Returns the error for the caller; an unexpected exception becomes its cause, for the log only."""
        if not isinstance(error, ServingError):
            hidden = ServingError(
                "The server failed to answer. Its log has the details, under the request id of this call."
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


def address_of(peer: str) -> tuple[str, int] | None:
    """Returns host and port of a caller's address as gRPC writes it; None if it is not a network address."""
    protocol, _, address = unquote(peer).partition(":")
    host, _, port = address.rpartition(":")
    return (host.strip("[]"), int(port)) if protocol in ("ipv4", "ipv6") and port.isdecimal() else None


def _request_id(value: str | None) -> str:
    if value is not None and 0 < len(value) <= MAX_REQUEST_ID_CHARACTERS and value.isascii() and value.isprintable():
        return value
    return f"{random.getrandbits(64):016x}"
