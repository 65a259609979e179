"""An answer that a model gives part by part, each made in a thread of the model.

Rule of this module: a thread is held only while a part is made, so that a caller who reads slowly holds up nobody. The
model's iterator is closed in a thread too, once, and never while it runs.
"""

import asyncio
import threading
import time
from collections.abc import Generator
from typing import Any

from mlflow_grpc.engine.threads import ModelThreads
from mlflow_grpc.errors import NotReady
from mlflow_grpc.own_loggers import get_logger

logger = get_logger(__name__)

CLOSE_S = 30.0
"""How long an iterator that was left early may wait for a thread to be closed in, in seconds."""

_closing: set[asyncio.Task[None]] = set()
"""Tasks that nobody waits for; the event loop alone would forget them."""


class Parts:
    """The parts of one answer; used from the event loop only."""

    def __init__(self, iterator: Generator[Any], threads: ModelThreads) -> None:
        """Args:
        iterator: Gives them; never gives None.
        threads: Where it runs.
        """
        self._iterator = iterator
        self._threads = threads
        # One for all parts: MLflow keeps what belongs to a prediction in a context variable.
        self._context = threads.context.copy()
        self._lock = threading.Lock()  # Of what follows.
        self._running = False
        self._begun = False
        self._left = False
        self._ended = False

    async def next(self, *, deadline: float) -> Any:
        """The next part; None if there is no other.

        Args:
            deadline: On the clock of `time.monotonic`, in seconds.

        Raises:
            TimeoutError: The deadline passed.
            Exception: Whatever the iterator raises.

        """
        return await self._threads.run(self._next, deadline=deadline)

    def _next(self) -> Any:
        with self._lock:
            if self._left:
                return None
            self._running = self._begun = True
        try:
            part = self._context.run(next, self._iterator, None)
        except BaseException:
            self._ended = True
            raise
        finally:
            with self._lock:
                self._running = False
                left = self._left
            if left:
                self._close()
        self._ended = part is None
        return part

    def _close(self) -> None:
        try:
            self._context.run(self._iterator.close)
        except BaseException:
            logger.warning("a model's predict_stream raised when it was closed", exc_info=True)

    async def aclose(self) -> None:
        """Ends the iterator, if it has not come to its end: at once, or when the part that is being made is there."""
        with self._lock:
            if self._left or self._ended:
                return
            self._left = True
            running = self._running
        if not running and self._begun:
            # Nobody waits for that: the caller has gone, or is to be told what went wrong.
            closing = asyncio.get_running_loop().create_task(self._close_in_thread())
            _closing.add(closing)
            closing.add_done_callback(_closing.discard)

    async def _close_in_thread(self) -> None:
        try:
            await self._threads.run(self._close, deadline=time.monotonic() + CLOSE_S)
        except (TimeoutError, NotReady):
            logger.warning("no thread was free to close a model's predict_stream, which its caller left")
