"""The channels of a client.

gRPC takes a list of IP addresses or a single name, so the names of a list are resolved here. Rule of this module: a
resolver has a thread of its own, because nothing can interrupt it, and only the first calls wait for it. When addresses
change, the old channel is closed after its last call.
"""

import math
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import grpc

from mlflow_grpc_client._connection.targets import Target, ip_version, name_of
from mlflow_grpc_client.errors import PredictError, client_closed, failure

RESOLVE_INTERVAL_S = 30.0
"""Seconds after which a call has the names resolved again: the minimum of gRPC's own resolver."""


Resolution = Future[PredictError | None]
"""The end of a resolution of names: None, or the error."""


def resolve(target: Target) -> str:
    """The gRPC target for the current addresses of a list's names; raises PredictError if none has any.

    Names that cannot be resolved are left out.
    """
    addresses: dict[tuple[str, str], None] = {}
    missing = []
    for host, port in target.hosts:
        try:
            results = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # UnicodeError: a label that IDNA cannot encode.
            missing.append(host)
            continue
        pairs = [(str(address[0]), str(address[1])) for *_, address in results]
        # Both addresses of localhost are the same machine, whose server may listen on IPv4 only.
        ipv4_pairs = [pair for pair in pairs if ip_version(pair[0]) == 4]  # noqa: PLR2004
        addresses.update(dict.fromkeys(ipv4_pairs if host.lower() == "localhost" and ipv4_pairs else pairs))
    if not addresses:
        hosts = ", ".join(missing)
        raise failure(grpc.StatusCode.UNAVAILABLE, f"None of the hosts of {target.text} can be found: {hosts}.")
    return name_of(sorted(addresses))


class Channels:
    """The channel to the current addresses, and channels to former addresses that still have calls."""

    def __init__(self, target: Target, make: Callable[[str], Any], close: Callable[[Any], None]) -> None:
        """Takes a target."""
        self._target = target
        self._make = make
        self._close = close
        self._lock = threading.Lock()
        self._resolved_name = target.name
        self._current: Any = None
        self._current_name = ""
        self._call_counts: dict[Any, int] = {}
        self._resolved_at = math.inf if target.name else 0.0
        self._resolution: Resolution | None = None
        self._is_closed = False

    def first_resolution(self) -> Resolution | None:
        """The resolution that a call waits for before `acquire`; None once the names have been resolved."""
        if self._resolved_name:
            return None
        with self._lock:
            return self._running_resolution()

    def acquire(self) -> Any:
        """The channel for a call, to be released when the call has ended; a PredictError once the client is closed."""
        with self._lock:
            if self._is_closed:
                raise client_closed()
            if time.monotonic() - self._resolved_at > RESOLVE_INTERVAL_S:
                self._running_resolution()
            if self._current_name != self._resolved_name:
                former, self._current = self._current, self._make(self._resolved_name)
                self._current_name = self._resolved_name
                self._call_counts[self._current] = 0
                self._close_if_unused(former)
            self._call_counts[self._current] += 1
            return self._current

    def release(self, channel: Any) -> None:
        """Counts the end of a call."""
        with self._lock:
            if channel in self._call_counts:
                self._call_counts[channel] -= 1
                self._close_if_unused(channel)

    def detach_all(self) -> list[Any]:
        """Returns the open channels for the caller to close. There are no new ones from now on."""
        with self._lock:
            self._is_closed = True
            channels, self._call_counts = list(self._call_counts), {}
            self._current, self._current_name = None, ""
            return channels

    def _close_if_unused(self, channel: Any) -> None:
        if channel is not None and channel is not self._current and not self._call_counts.get(channel, 1):
            del self._call_counts[channel]
            self._close(channel)

    def _running_resolution(self) -> Resolution:
        """The resolution that runs now, or a new one. The lock is held."""
        if self._resolution is None:
            self._resolution = Future()
            threading.Thread(target=self._resolve, args=(self._resolution,), name="resolve", daemon=True).start()
        return self._resolution

    def _resolve(self, resolution: Resolution) -> None:
        name, error = "", None
        try:
            name = resolve(self._target)
        except PredictError as failed:
            error = failed
        with self._lock:
            # After a failure the former addresses stay until the next attempt.
            self._resolved_name, self._resolved_at = name or self._resolved_name, time.monotonic()
            self._resolution = None
        resolution.set_result(error)
