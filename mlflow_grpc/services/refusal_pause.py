"""A short pause before refused calls are answered, so that recent ones are answered together.

These are calls that are refused because of overload, and those of unknown callers.

Rule of this module: it is used from the event loop only.

gRPC wakes a thread and the event loop for each answer that it sends by itself. For answers that are sent together it
does so once, and one write takes those of a connection.
"""

import asyncio

PAUSE_S = 0.005
"""Maximum time that a refusal waits for others, in seconds; callers wait at least twice as long before they retry."""


class RefusalPause:
    """The pause that refused calls share."""

    def __init__(self) -> None:
        self._end: asyncio.Event | None = None

    async def wait(self) -> None:
        """Waits for the end of the pause; begins one if there is none."""
        if self._end is None:
            self._end = asyncio.Event()
            asyncio.get_running_loop().call_later(PAUSE_S, self._finish, self._end)
        await self._end.wait()

    def _finish(self, end: asyncio.Event) -> None:
        self._end = None
        end.set()
