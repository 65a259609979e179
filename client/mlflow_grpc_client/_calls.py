"""RPCs that are ready to be sent, for both clients.

Rule of this module: plain values with the bytes to send and a reader of the response.
"""

import math
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mlflow_grpc_client._options import Metadata

OnError = Literal["raise", "return"]
"""How a stream delivers the error of a record: raised or returned, in the record's turn."""


@dataclass(frozen=True, slots=True)
class Call:
    """An RPC with a single request and a single response."""

    method: str
    request: Any
    """A message."""
    response_class: Any
    read: Callable[[Any], Any]
    """Reads a message of `response_class`."""
    timeout_s: float
    metadata: Metadata = ()
    deadline: float | None = None
    """The deadline of the user's call, which can consist of several RPCs, on the monotonic clock."""
    model: str = ""
    """The model's label, if the method names the model instead of the metadata."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause before a retry. The result is False, without a pause, if it would not end before the deadline."""

    duration_s: float


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait for the result of a future that several calls share."""

    future: Future[Any]
    timeout_s: float | None
    """The caller's timeout in seconds, for the message of the error."""


Steps = Generator[Any, Any, Any]
"""What a call of the user consists of: a Call, Collect, Pause or Wait at a time.

The result of each step is sent back, its PredictError thrown. `close` ends it early.
"""


def deadline_after(timeout_s: float | None) -> float:
    """The deadline of a call that starts now, on the monotonic clock; infinite without a timeout."""
    return math.inf if timeout_s is None else time.monotonic() + timeout_s


def remaining_s(deadline: float) -> float | None:
    """Seconds until a deadline, as gRPC and futures take them: None without an end.

    A millisecond if the deadline has passed, because grpc.aio reads 0 as no deadline.
    """
    return None if deadline == math.inf else max(deadline - time.monotonic(), 0.001)


@dataclass(frozen=True, slots=True)
class Stream:
    """An RPC with a stream of responses."""

    method: str
    requests: Any
    """The message of a single request, or an iterable of records. An AsyncClient takes asynchronous iterables, too."""
    encode: Callable[[Any, int], Any] | None
    """Converts a record and its index into the message of a request; None for a single request."""
    response_class: Any
    read: Callable[[Any, int], Any]
    """Reads the answer with an index, or the PredictError in its place."""
    timeout_s: float | None
    metadata: Metadata = ()
    on_error: OnError = "raise"
    model: str = ""
    """The model's label; see `Call`."""
    deadline: float | None = None
    """See `Call`."""
    is_paired: bool = True
    """True if the stream has an answer to each request."""

    def __post_init__(self) -> None:
        if self.on_error not in get_args(OnError):
            raise ValueError(f"on_error is 'raise' or 'return'; not {self.on_error!r}")
