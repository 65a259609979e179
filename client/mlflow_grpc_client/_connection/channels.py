"""The channels of a client whose servers are a list of names.

gRPC takes a list of IP addresses or one name, so names of a list are looked up here. Rule of this module: a call never
waits for a resolver but the first one; a channel to addresses that have changed is closed when its last call has ended.
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

LOOK_UP_AGAIN_S = 30.0
"""After which time a call has the names looked up again, in seconds; the least that gRPC's own resolver waits."""


def look_up(target: Target) -> str:
    """The target of gRPC's for the addresses that the names of a list have now. Names that are not found are left out.

    Raises:
        PredictError: UNAVAILABLE, none of them is found.

    """
    addresses: dict[tuple[str, str], None] = {}
    missing = []
    for host, port in target.hosts:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            missing.append(host)
            continue
        pairs = [(str(address[0]), str(address[1])) for *_, address in found]
        # Both addresses of localhost are one machine, and a server may well listen at that of IPv4 alone.
        of_ipv4 = [pair for pair in pairs if ipaddress.ip_address(pair[0].partition("%")[0]).version == 4]  # noqa: PLR2004
        addresses.update(dict.fromkeys(of_ipv4 if host.lower() == "localhost" and of_ipv4 else pairs))
    if not addresses:
        hosts = ", ".join(missing)
        raise failure(grpc.StatusCode.UNAVAILABLE, f"None of the hosts of {target.text} can be found: {hosts}.")
    return name_of(sorted(addresses))


class Channels:
    """The channel to the addresses that names have now, and those to former ones that have calls still."""

    def __init__(self, target: Target, make: Callable[[str], Any], close: Callable[[Any], None]) -> None:
        """Args:
        target: A list with names.
        make: Makes a channel to a target of gRPC's.
        close: Closes a channel that has no calls.
        """
        self._target = target
        self._make = make
        self._close = close
        self._lock = threading.Lock()
        self._wanted = ""
        self._current: Any = None
        self._current_name = ""
        self._calls: dict[Any, int] = {}
        self._looked_up = 0.0
        self._is_looking = False

    @property
    def is_known(self) -> bool:
        """Whether the names have been looked up."""
        return bool(self._wanted)

    def look_up(self) -> None:
        """Looks the names up.

        Raises:
            PredictError: None of them is found.

        """
        found = look_up(self._target)
        with self._lock:
            self._wanted, self._looked_up = found, time.monotonic()

    def take(self) -> Any:
        """The channel for a call, which is to be given back when the call has ended."""
        with self._lock:
            if time.monotonic() - self._looked_up > LOOK_UP_AGAIN_S and not self._is_looking:
                self._is_looking = True
                threading.Thread(target=self._look_up_again, name="look-up", daemon=True).start()
            if self._current_name != self._wanted:
                former, self._current = self._current, self._make(self._wanted)
                self._current_name = self._wanted
                self._calls[self._current] = 0
                self._close_if_unused(former)
            self._calls[self._current] += 1
            return self._current

    def give_back(self, channel: Any) -> None:
        """Says that a call has ended."""
        with self._lock:
            if channel in self._calls:
                self._calls[channel] -= 1
                self._close_if_unused(channel)

    def all(self) -> list[Any]:
        """The channels that are open, which are this object's no longer."""
        with self._lock:
            channels, self._calls = list(self._calls), {}
            self._current, self._current_name = None, ""
            return channels

    def _close_if_unused(self, channel: Any) -> None:
        if channel is not None and channel is not self._current and not self._calls.get(channel, 1):
            del self._calls[channel]
            self._close(channel)

    def _look_up_again(self) -> None:
        try:
            self.look_up()
        except PredictError:  # What was found before stays, and is looked up once more later.
            with self._lock:
                self._looked_up = time.monotonic()
        finally:
            self._is_looking = False
