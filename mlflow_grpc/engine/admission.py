"""Which calls may come in, and how many are in.

Rule of this module: it is used from the event loop only, so a look and the step after it are one.
"""

import asyncio
from enum import Enum
from types import TracebackType

from mlflow_grpc.errors import NotReady


class Stage(Enum):
    """A server's life as its callers see it; the value is what they are told when it is not OPEN."""

    LOADING = "The model is still being loaded. Try again in a moment."
    OPEN = ""
    DRAINING = "The server is shutting down. Try again: another server may take the call."


class Admission:
    """Lets calls in while the stage is OPEN, counts them, and tells when the last one has left.

    Use it as a context manager around a call.
    """

    def __init__(self) -> None:
        self.stage = Stage.LOADING
        self.in_flight = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def __enter__(self) -> None:
        """Raises:
        NotReady: The model is loading, or the server is draining.
        """
        if self.stage is not Stage.OPEN:
            raise NotReady(self.stage.value)
        self.in_flight += 1
        self._empty.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.in_flight -= 1
        if self.in_flight == 0:
            self._empty.set()

    async def wait_until_empty(self) -> None:
        """Returns once no admitted call is left; at once if there is none."""
        await self._empty.wait()
