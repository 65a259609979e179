"""The queue of requests of streams that wait for room in the server, in the order of their arrival.

Rule of this module: it keeps the order. `mlflow_grpc.engine.admission` decides when there is room. Used from the event
loop only.
"""

import asyncio
from collections import deque
from collections.abc import Callable


class StreamQueue:
    """Requests of streams that wait for room."""

    def __init__(
        self, has_room: Callable[[int], bool], acquire: Callable[[int], None], release: Callable[[int], None]
    ) -> None:
        """Starts empty.

        Args:
            has_room: Returns True if there is room for a request of a size.
            acquire: Takes the room of a request of a size.
            release: Releases the room of a request of a size that will not run.

        """
        self._has_room = has_room
        self._acquire = acquire
        self._release = release
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, size: int) -> None:
        """Waits for room and takes it, after the requests before; a large one gets its room too.

        Args:
            size: Size of the request, in bytes or characters.

        """
        if not self._waiting and self._has_room(size):
            self._acquire(size)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, size))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release(size)
            else:
                self.admit()  # Those behind it, if it was the first; it is removed there.
            raise

    def admit(self) -> None:
        """Admits the first requests, as far as there is room."""
        while self._waiting and (self._waiting[0][0].done() or self._has_room(self._waiting[0][1])):
            turn, size = self._waiting.popleft()
            if not turn.done():
                self._acquire(size)
                turn.set_result(None)
