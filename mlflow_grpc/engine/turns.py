"""In which order models that are fetched side by side are loaded.

Rule of this module: it runs nothing. It is used in one event loop.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager


class Turns:
    """Turns, one at a time: of those that wait, the one with the lowest number is next."""

    def __init__(self, soon: Iterable[int]) -> None:
        """Args:
        soon: Numbers that come soon, so that nobody has a turn before they have come or have been given up.
        """
        self._soon = set(soon)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._is_taken = False

    @property
    def waiting(self) -> int:
        """How many have come and have not had their turn to the end."""
        return len(self._waiting)

    def give_up(self, number: int) -> None:
        """Says that a number does not come."""
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
