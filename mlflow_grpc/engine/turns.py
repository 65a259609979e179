"""The order in which models are loaded after they were fetched in parallel.

Rule of this module: it runs nothing, and is used in one event loop.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager


class Turns:
    """Turns of numbered tasks, one at a time; the lowest number that waits is next."""

    def __init__(self, soon: Iterable[int]) -> None:
        """Starts without waiting tasks.

        Args:
            soon: Numbers that arrive soon. The first turn waits until each of them has arrived or was given up.

        """
        self._soon = set(soon)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._is_taken = False

    @property
    def waiting(self) -> int:
        """Number of tasks that have arrived and not ended their turn."""
        return len(self._waiting)

    def give_up(self, number: int) -> None:
        """Gives up a number that will not arrive."""
        self._soon.discard(number)
        self._next()

    @asynccontextmanager
    async def turn(self, number: int) -> AsyncIterator[None]:
        """Waits for the turn of a number and holds it; each number has one turn."""
        mine = asyncio.get_running_loop().create_future()
        self._waiting[number] = mine
        self.give_up(number)
        try:
            await mine
            yield
        finally:
            del self._waiting[number]
            if mine.done() and not mine.cancelled():
                self._is_taken = False
            self._next()

    def _next(self) -> None:
        if self._is_taken or self._soon or not self._waiting:
            return
        first = self._waiting[min(self._waiting)]
        if not first.done():
            self._is_taken = True
            first.set_result(None)
