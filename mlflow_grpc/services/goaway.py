"""The TCP sockets of the server's port at shutdown: closing the port, and GOAWAY on open connections.

Rule of this module: gRPC owns these sockets. They are looked up here, and neither opened nor kept.

grpc-go's GracefulStop closes the port, sends GOAWAY, and answers the calls that arrive until clients have read it.
gRPC's core, which Python uses, can do either only together with refusing calls: after `Server.stop`, each call that a
client sends before it has read the GOAWAY is CANCELLED. So both are done here, by means of the operating system:

- Another socket replaces the listening one, which closes it.
- The first GOAWAY of a graceful shutdown (RFC 9113, section 6.8) is the same 17 bytes for every connection. They may
  be written only between two frames. gRPC writes complete frames at a time, and has written all of them if the send
  buffer is empty. A write that the socket took in part leaves a full buffer, which refuses these bytes too.

Bytes cannot be put into a TLS connection in this way. Its client gets a GOAWAY when the connection reaches its maximum
age (`--max-connection-age`), otherwise from `grpc.Server.stop`. The same applies to systems without /proc.
"""

import asyncio
import fcntl
import math
import os
import socket
import stat
import struct
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

GOAWAY = bytes.fromhex("000008 07 00 00000000 7fffffff 00000000")
"""Frame header (length 8, type 7, no flags, stream 0), the highest possible stream id, NO_ERROR."""

INTERVAL_S = 0.05
"""Interval between two checks of the connections, in seconds."""

_FILES = Path("/proc/self/fd")

_BYTES_ACKED_OFFSET = 120
"""Position of tcpi_bytes_acked in Linux's struct tcp_info (linux/tcp.h), which has grown only at its end."""

_TCP_INFO_BYTES = _BYTES_ACKED_OFFSET + 8


class Port:
    """Sockets of this process whose local port is the server's."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._notified: set[int] = set()

    def close(self) -> None:
        """Closes the listening sockets. New connections are refused; open connections stay."""
        for file, connection in self._sockets(listening=True):
            with connection, socket.socket() as unused:
                os.dup2(unused.fileno(), file, inheritable=False)

    async def send_goaway_to_all(self, *, limit_s: float) -> None:
        """Asks all clients to make no new calls on their open connections.

        Args:
            limit_s: Maximum time to wait for a busy connection, in seconds.
        """
        await _wait_until(self._send_goaway, limit_s)

    async def wait_until_left(self, *, limit_s: float) -> None:
        """Returns when no connection is open, or after `limit_s` seconds."""
        await _wait_until(self._is_left, limit_s)

    def _is_left(self) -> bool:
        for _, connection in self._sockets(listening=False):
            connection.close()
            return False
        return True

    def _send_goaway(self) -> bool:
        """Sends GOAWAY on the connections that have not got it; returns True if all have."""
        all_notified = True
        for _, connection in self._sockets(listening=False):
            with connection:
                inode = os.fstat(connection.fileno()).st_ino
                if inode not in self._notified:
                    if _send_between_frames(connection):
                        self._notified.add(inode)
                    else:
                        all_notified = False
        return all_notified

    def _sockets(self, *, listening: bool) -> Iterator[tuple[int, socket.socket]]:
        """Yields file descriptors of the port's sockets, with a copy of each that the caller has to close."""
        for file in map(int, os.listdir(_FILES) if _FILES.is_dir() else ()):  # noqa: PTH208 - names, not paths
            if (copy := _copy(file)) is None:
                continue
            if self._is_ours(copy) and bool(copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) is listening:
                yield file, copy
            else:
                copy.close()

    def _is_ours(self, candidate: socket.socket) -> bool:
        is_tcp = candidate.type == socket.SOCK_STREAM and candidate.family in (socket.AF_INET, socket.AF_INET6)
        return is_tcp and bool(candidate.getsockname()[1] == self._number)


async def _wait_until(condition: Callable[[], bool], limit_s: float) -> None:
    """Checks a condition again and again, because no event reports changes of gRPC's sockets."""
    for _ in range(math.ceil(limit_s / INTERVAL_S)):
        if condition():
            return
        await asyncio.sleep(INTERVAL_S)


def _copy(file: int) -> socket.socket | None:
    """Duplicates a file descriptor as a socket; None if it is not a socket or has been closed meanwhile."""
    try:
        copy = os.dup(file)
    except OSError:
        return None
    if stat.S_ISSOCK(os.fstat(copy).st_mode):
        return socket.socket(fileno=copy)
    os.close(copy)
    return None


def _send_between_frames(connection: socket.socket) -> bool:
    """Sends GOAWAY if the peer has got all frames so far; returns True if it was sent, or the peer has left.

    gRPC's first frame, SETTINGS, has to come before GOAWAY.
    """
    try:
        (unsent,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))
        information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        (acknowledged,) = struct.unpack_from("=Q", information, _BYTES_ACKED_OFFSET)
        is_between = acknowledged and not unsent
        return bool(is_between) and connection.send(GOAWAY, socket.MSG_DONTWAIT) == len(GOAWAY)
    except BlockingIOError:
        return False
    except OSError:
        return True
