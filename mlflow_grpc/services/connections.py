"""The TCP sockets of the server's port, for the end of a server.

Rule of this module: gRPC owns these sockets; here they are only found, the port is closed, and clients are told to go.

grpc-go's GracefulStop closes the port and sends GOAWAY, and answers what still comes until clients have read it. gRPC's
core, which Python has, can do either part only together with refusing calls: from `Server.stop` on, each call that a
client sends before it has read the GOAWAY is CANCELLED. So both are done here, by means of the operating system:

- Another socket is put in the place of the listening one, which closes it.
- The first GOAWAY of a graceful shutdown (RFC 9113, section 6.8) is the same 17 bytes for every connection. They may be
  written between two frames only. gRPC writes whole frames at a time, and has written all of them if nothing waits in
  the socket: a write that the socket took in part leaves a full socket behind, which refuses these bytes too.

Bytes cannot be put into a TLS connection in this way. Its client is told by the connection's age, if it has a limit
(`--max-connection-age`), and else by `Server.stop`. The same goes for systems without /proc.
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
"""Frame header (length 8, type 7, no flags, stream 0), the highest stream id that there can be, NO_ERROR."""

INTERVAL_S = 0.05
"""How often the connections are looked at, in seconds."""

_FILES = Path("/proc/self/fd")


class Port:
    """The sockets of this process whose local port is one of the server's."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._seen: set[int] = set()
        self._told: set[int] = set()

    def close(self) -> None:
        """Closes the listening sockets: new connections are refused, and those that are open go on."""
        for file, connection in self._sockets(listening=True):
            with connection, socket.socket() as unused:
                os.dup2(unused.fileno(), file, inheritable=False)

    async def send_goaway_to_all(self, *, limit_s: float) -> None:
        """Tells all clients to make no new calls on the connections that are open.

        Args:
            limit_s: How long a connection may be too busy for it, in seconds.

        """
        await _wait_until(self._send_goaway, limit_s)

    async def wait_until_left(self, *, limit_s: float) -> None:
        """Returns when no connection is open, or after so many seconds."""
        await _wait_until(self._is_left, limit_s)

    def _is_left(self) -> bool:
        for _, connection in self._sockets(listening=False):
            connection.close()
            return False
        return True

    def _send_goaway(self) -> bool:
        """Sends GOAWAY on the connections that were there at the last call too; whether it was sent on all.

        On a connection that is a moment old gRPC has written its settings, which have to come first.
        """
        seen, all_told = set(), True
        for _, connection in self._sockets(listening=False):
            with connection:
                inode = os.fstat(connection.fileno()).st_ino
                seen.add(inode)
                if inode not in self._told:
                    if inode in self._seen and _send_between_frames(connection):
                        self._told.add(inode)
                    else:
                        all_told = False
        self._seen = seen
        return all_told

    def _sockets(self, *, listening: bool) -> Iterator[tuple[int, socket.socket]]:
        """File descriptors of the port's sockets, with a copy of each that the caller has to close."""
        for file in map(int, os.listdir(_FILES) if _FILES.is_dir() else ()):  # noqa: PTH208 - names are wanted
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
    """Nothing reports a change of a socket of gRPC's, so they are looked at again and again."""
    for _ in range(math.ceil(limit_s / INTERVAL_S)):
        if condition():
            return
        await asyncio.sleep(INTERVAL_S)


def _copy(file: int) -> socket.socket | None:
    """A socket object of its own for a file descriptor; None if it is no socket, or has been closed meanwhile."""
    try:
        copy = os.dup(file)
    except OSError:
        return None
    if stat.S_ISSOCK(os.fstat(copy).st_mode):
        return socket.socket(fileno=copy)
    os.close(copy)
    return None


def _send_between_frames(connection: socket.socket) -> bool:
    """Sends GOAWAY if no byte waits in the socket; whether it was sent, or nobody is there to read it."""
    try:
        (unsent,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))
        return not unsent and connection.send(GOAWAY, socket.MSG_DONTWAIT) == len(GOAWAY)
    except BlockingIOError:
        return False
    except OSError:
        return True
