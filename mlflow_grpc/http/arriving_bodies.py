"""Memory limit for request bodies until the engine, which has a limit of its own, gets them.

Rule of this module: it counts bytes. gRPC limits such bytes by its flow control; an HTTP server does not.
"""

from typing import Self

from mlflow_grpc.errors import Overloaded

RETRY_S = 1.0
"""Time after which a refused caller should try again, in seconds."""


class ArrivingBodies:
    """The request bodies of all connections; used from the event loop only."""

    def __init__(self, max_bytes: int) -> None:
        """Starts without bodies.

        Args:
            max_bytes: Maximum size of all these bodies together. A larger body may arrive if it is the only one.

        """
        self._max_bytes = max_bytes
        self._bytes = 0

    def reading(self) -> "ArrivingBody":
        """Returns a context manager that frees the room of one body."""
        return ArrivingBody(self)

    def take(self, size: int, body_bytes: int) -> None:
        """Reserves room for a piece of a body that already has `body_bytes` bytes.

        Raises:
            Overloaded: There is no room.

        """
        if self._bytes + size > self._max_bytes and self._bytes > body_bytes:
            raise Overloaded(
                "The server is receiving as much request data as it can hold. Try again later, or send more slowly.",
                retry_after_s=RETRY_S,
            )
        self._bytes += size

    def free(self, size: int) -> None:
        """Frees the room of a body."""
        self._bytes -= size


class ArrivingBody:
    """The room reserved for one body."""

    __slots__ = ("_bodies", "_bytes")

    def __init__(self, bodies: ArrivingBodies) -> None:
        self._bodies = bodies
        self._bytes = 0

    def take(self, size: int) -> None:
        """Reserves room for a piece of the body; raises Overloaded if there is no room."""
        self._bodies.take(size, self._bytes)
        self._bytes += size

    def free(self) -> None:
        """Frees the room, unless it has been freed already."""
        self._bodies.free(self._bytes)
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.free()
