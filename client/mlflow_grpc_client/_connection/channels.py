"""The channels of a client whose servers are a list with host names.

gRPC takes a list of IP addresses or a single name, so the names of a list are resolved here. Rule of this module: only
the first call waits for a resolver. When addresses change, the old channel is closed after its last call.
"""

import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from mlflow_grpc_client._connection.targets import Target, name_of
from mlflow_grpc_client.errors import PredictError, failure

RESOLVE_INTERVAL_S = 30.0
"""Seconds after which a call has the names resolved again: the minimum of gRPC's own resolver."""


def resolve(target: Target) -> str:
    """The gRPC target for the current addresses of a list's names. Names that cannot be resolved are left out.

    Raises:
        PredictError: UNAVAILABLE, no name can be resolved.

    """
    addresses: dict[tuple[str, str], None] = {}
    missing = []
    for host, port in target.hosts:
        try:
            results = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            missing.append(host)
            continue
        pairs = [(str(address[0]), str(address[1])) for *_, address in results]
        # Both addresses of localhost are the same machine, whose server may listen on IPv4 only.
        ipv4_pairs = [pair for pair in pairs if ipaddress.ip_address(pair[0].partition("%")[0]).version == 4]  # noqa: PLR2004
        addresses.update(dict.fromkeys(ipv4_pairs if host.lower() == "localhost" and ipv4_pairs else pairs))
    if not addresses:
        hosts = ", ".join(missing)
        raise failure(grpc.StatusCode.UNAVAILABLE, f"None of the hosts of {target.text} can be found: {hosts}.")
    return name_of(sorted(addresses))


class Channels:
    """The channel to the current addresses, and channels to former addresses that still have calls."""

    def __init__(self, target: Target, make: Callable[[str], Any], close: Callable[[Any], None]) -> None:
        """Takes a target that is not resolved yet.

        Args:
            target: A list with host names.
            make: Creates a channel to a gRPC target.
            close: Closes a channel without calls.

        """
        self._target = target
        self._make = make
        self._close = close
        self._lock = threading.Lock()
        self._resolved_name = ""
        self._current: Any = None
        self._current_name = ""
        self._call_counts: dict[Any, int] = {}
        self._resolved_at = 0.0
        self._is_resolving = False

    @property
    def is_resolved(self) -> bool:
        """True if the names have been resolved once."""
        return bool(self._resolved_name)

    def resolve(self) -> None:
        """Resolves the names.

        Raises:
            PredictError: No name can be resolved.

        """
        name = resolve(self._target)
        with self._lock:
            self._resolved_name, self._resolved_at = name, time.monotonic()

    def acquire(self) -> Any:
        """The channel for a call, to be released when the call has ended."""
        with self._lock:
            if time.monotonic() - self._resolved_at > RESOLVE_INTERVAL_S and not self._is_resolving:
                self._is_resolving = True
                threading.Thread(target=self._resolve_again, name="resolve", daemon=True).start()
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
        """Returns the open channels for the caller to close, and forgets them."""
        with self._lock:
            channels, self._call_counts = list(self._call_counts), {}
            self._current, self._current_name = None, ""
            return channels

    def _close_if_unused(self, channel: Any) -> None:
        if channel is not None and channel is not self._current and not self._call_counts.get(channel, 1):
            del self._call_counts[channel]
            self._close(channel)

    def _resolve_again(self) -> None:
        try:
            self.resolve()
        except PredictError:  # The former addresses stay until the next attempt.
            with self._lock:
                self._resolved_at = time.monotonic()
        finally:
            self._is_resolving = False
