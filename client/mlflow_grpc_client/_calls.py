"""RPCs that are ready to be sent, for both clients.

Rule of this module: plain values with the bytes to send and a reader of the response.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mlflow_grpc_client._options import Metadata

OnError = Literal["raise", "return"]
"""How a stream delivers the error of a record: raised or returned, in the record's turn."""


@dataclass(frozen=True, slots=True)
class Call:
    """An RPC with a single request and a single response."""

    method: str
    request: bytes
    read: Callable[[bytes], Any]
    timeout_s: float
    metadata: Metadata = ()
    deadline: float | None = None
    """The deadline of the user's call, which can consist of several RPCs, on the monotonic clock."""
    model: str = ""
    """The model's label, if the method names the model instead of the metadata."""

    @property
    def remaining_s(self) -> float:
        """Seconds until the timeout or the deadline. Never 0, because grpc.aio reads 0 as no deadline."""
        return self.timeout_s if self.deadline is None else min(self.timeout_s, remaining_s(self.deadline))


def remaining_s(deadline: float) -> float:
    """Seconds until a deadline on the monotonic clock; a millisecond if it has passed."""
    return max(deadline - time.monotonic(), 0.001)


@dataclass(frozen=True, slots=True)
class Stream:
    """An RPC with a stream of responses."""

    method: str
    requests: Any
    """The bytes of a single request, or an iterable of records. An AsyncClient takes asynchronous iterables, too."""
    encode: Callable[[Any], bytes]
    """Converts a record into the bytes of a request."""
    read: Callable[[bytes], Any]
    """Reads an answer, or the PredictError in its place."""
    timeout_s: float | None
    metadata: Metadata = ()
    on_error: OnError = "raise"
    model: str = ""
    """The model's label; see `Call`."""

    def __post_init__(self) -> None:
        if self.on_error not in get_args(OnError):
            raise ValueError(f"on_error is 'raise' or 'return'; not {self.on_error!r}")
