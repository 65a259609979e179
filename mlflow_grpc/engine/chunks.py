"""Chunks of a streamed answer, each made in a thread of the model.

Rule of this module: a thread is occupied only while a chunk is made, so a caller that reads slowly delays no other
call. The model's iterator is closed in a thread too, once, and never while it runs.
"""

import asyncio
import threading
import time
from collections.abc import Generator
from typing import Generic

from mlflow_grpc.engine.requests import AnswerT
from mlflow_grpc.engine.thread_pool import ModelThreadPool
from mlflow_grpc.engine.time_limit import TimeLimit
from mlflow_grpc.errors import NotReady
from mlflow_grpc.own_loggers import get_logger

logger = get_logger(__name__)

CLOSE_S = 30.0
"""Maximum wait for a thread to close an iterator that was abandoned, in seconds."""

_closing: set[asyncio.Task[None]] = set()
"""Tasks that are not awaited; the event loop by itself keeps only weak references."""


class ResponseChunks(Generic[AnswerT]):
    """Chunks of one answer; used from the event loop only."""

    def __init__(self, iterator: Generator[AnswerT], threads: ModelThreadPool) -> None:
        """Starts nothing yet.

        Args:
            iterator: Yields the chunks; never yields None.
            threads: Where it runs.

        """
        self._iterator = iterator
        self._threads = threads
        # One context for all chunks: MLflow keeps what belongs to a prediction in a context variable.
        self._context = threads.context.copy()
        self._lock = threading.Lock()  # Guards the flags below.
        self._running = False
        self._started = False
        self._abandoned = False
        self._ended = False

    async def next(self, limit: TimeLimit) -> AnswerT | None:
        """Returns the next chunk; None after the last.

        Args:
            limit: Time limit of the chunk.

        Raises:
            TimeLimitExceeded: The chunk was not made in time.
            Exception: Whatever the iterator raises.

        """
        with limit:
            return await self._threads.run(self._next, deadline=limit.deadline)

    def _next(self) -> AnswerT | None:
        with self._lock:
            if self._abandoned:
                return None
            self._running = self._started = True
        try:
            chunk: AnswerT | None = self._context.run(next, self._iterator, None)
        except BaseException:
            self._ended = True
            raise
        finally:
            with self._lock:
                self._running = False
                abandoned = self._abandoned
            if abandoned:
                self._close()
        self._ended = chunk is None
        return chunk

    def _close(self) -> None:
        try:
            self._context.run(self._iterator.close)
        except BaseException:
            logger.warning("a model's predict_stream raised when it was closed", exc_info=True)

    async def aclose(self) -> None:
        """Closes the iterator, as `contextlib.aclosing` needs it; see `abandon`."""
        self.abandon()

    def abandon(self) -> None:
        """Closes an iterator that has not ended: at once, or after the chunk in progress."""
        with self._lock:
            if self._abandoned or self._ended:
                return
            self._abandoned = True
            running = self._running
        if not running and self._started:
            # Not awaited: the caller has left, or is about to get an error.
            closing = asyncio.get_running_loop().create_task(self._close_in_thread())
            _closing.add(closing)
            closing.add_done_callback(_closing.discard)

    async def _close_in_thread(self) -> None:
        try:
            await self._threads.run(self._close, deadline=time.monotonic() + CLOSE_S)
        except (TimeoutError, NotReady):
            logger.warning("no thread was free to close a model's predict_stream that its caller abandoned")
