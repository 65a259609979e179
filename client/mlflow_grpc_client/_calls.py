"""RPCs that are ready to be made, in the terms of both clients.

Rule of this module: plain values, which say what to send and how to read what comes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mlflow_grpc_client._options import Metadata
from mlflow_grpc_client._typed.contract import Contract

OnError = Literal["raise", "return"]
"""What becomes of the error of one record of a stream: it is raised in its place, or given there."""


@dataclass(frozen=True, slots=True)
class Call:
    """One RPC of one request and one answer."""

    method: str
    request: bytes
    read: Callable[[bytes], Any]
    timeout_s: float
    metadata: Metadata = ()
    until: float | None = None
    """The deadline of what it is one of several steps of, on the monotonic clock."""
    model: str = ""
    """Which model it is for, if the method says so and not the metadata."""

    @property
    def left_s(self) -> float:
        """The time that it has, in seconds; never 0, which grpc.aio takes for no deadline."""
        return self.timeout_s if self.until is None else min(self.timeout_s, left_s(self.until))


def left_s(until: float) -> float:
    """The time to a deadline on the monotonic clock; a millisecond if it is past."""
    return max(until - time.monotonic(), 0.001)


@dataclass(frozen=True, slots=True)
class Stream:
    """One RPC with a stream of answers."""

    method: str
    requests: Any
    """The bytes of the only request, or records: an iterable, for an AsyncClient also an asynchronous one."""
    encode: Callable[[Any], bytes]
    """Makes a request of a record."""
    read: Callable[[bytes], Any]
    """Makes an answer; a PredictError if that is what stands in its place."""
    timeout_s: float | None
    metadata: Metadata = ()
    on_error: OnError = "raise"
    model: str = ""
    """As of `Call`."""

    def __post_init__(self) -> None:
        if self.on_error not in get_args(OnError):
            raise ValueError(f"on_error is 'raise' or 'return'; not {self.on_error!r}")


@dataclass(frozen=True, slots=True)
class Learn:
    """The wish for the contract of a model."""

    label: str
    """`name`, `name/version`, or empty for the model that calls reach which name none."""
    call: Callable[[str, bytes, Callable[[bytes], Any]], Call]
    """Makes a call of a method, a request and how to read the answer."""
    timeout_s: float
    """How long whoever wishes it waits."""
    stale: Contract | None = None
    """One that may not be true any more."""
