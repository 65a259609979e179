"""Calls without a pause from clients with the project's retry policy, or without one."""

import asyncio
import collections
import threading
from typing import Any, Self

from mlflow_grpc_client import AsyncClient, PredictError

CALLERS = 4
"""Number of clients, each with one call at a time and a connection of its own."""


class Load:
    """Clients that call the model `steps` for the id of its process until the end of a block."""

    def __init__(self, address: str, *, callers: int = CALLERS) -> None:
        self.answers: collections.Counter[int] = collections.Counter()
        """Number of answers of each process since the last `clear`."""
        self.failures: collections.Counter[str] = collections.Counter()
        """Number of calls that failed after all of their retries, by status and message."""
        self._address, self._callers = address, callers
        self._is_over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    async def _run(self) -> None:
        await asyncio.gather(*(self._caller() for _ in range(self._callers)))

    async def _caller(self) -> None:
        channel = {"grpc.use_local_subchannel_pool": 1}
        async with AsyncClient(self._address, channel_options=channel) as client:
            while not self._is_over:
                try:
                    answer: Any = await client.predict({"inputs": ["pid"]}, model="steps", timeout_s=30)
                    self.answers[answer] += 1
                except PredictError as error:
                    self.failures[f"{type(error).__name__}: {error}"] += 1

    def clear(self) -> None:
        """Forgets the answers so far."""
        self.answers.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over = True
        self._thread.join(60)
        assert not self._thread.is_alive()
