"""A cache of the answers of a deterministic model, by their exact payloads; the least recently used ones are dropped.

Rule of this module: used from the event loop only. An engine has a cache of its own, which ends with its version.
Answers in chunks, answers that are tables of Arrow, and errors are never in it.
"""

import sys
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import Message

from mlflow_grpc.cache_config import CacheLimits
from mlflow_grpc.engine.engine import AnswerRequest
from mlflow_grpc.engine.progress import RequestProgress
from mlflow_grpc.engine.requests import AnswerT, Request, RequestObserver
from mlflow_grpc.engine.time_limit import TimeLimit
from mlflow_grpc.telemetry.challengers import CacheMetrics

OVERHEAD = 1024
"""What an answer takes beside its payload and itself, in bytes: keys, objects and the order of use."""


MAX_SIZE = 65_536
"""Maximum size of a payload that is looked up, in bytes or characters: the event loop computes its hash."""


class _Cached(NamedTuple):
    answer: Any
    rows: int
    size: int
    ignored: tuple[str, ...]
    """Names that the model ignored, which callers of the cached answer get as well."""


class AnswerCache:
    """Layer of an engine that answers repeated requests without the model."""

    def __init__(self, limits: CacheLimits, metrics: CacheMetrics | None) -> None:
        """Starts empty.

        Args:
            limits: Limits of rows and bytes.
            metrics: Where look-ups are counted; None if nowhere.

        """
        self._limits = limits
        self._metrics = metrics
        if metrics is not None:
            metrics.show()
            metrics.rows.set(0)
        self._answers: OrderedDict[Hashable, _Cached] = OrderedDict()
        self._rows = self._bytes = 0

    def around(self, answer: AnswerRequest) -> AnswerRequest:
        """Returns what answers requests from the cache, or else by the engine.

        Args:
            answer: The engine's way.

        """

        async def answer_from_cache(request: Request[AnswerT], size: int, limit: TimeLimit) -> AnswerT:
            key = request.cache_key if size <= MAX_SIZE else None
            if key is None:
                return await answer(request, size, limit)
            if (cached := self._answers.get(key)) is not None:
                self._answers.move_to_end(key)
                return self._hit(request, cached)
            if self._metrics is not None:
                self._metrics.misses.add()
            observer = request.observer = _Observer(request.observer)
            try:
                answered = await answer(request, size, limit)
            finally:
                request.observer = observer.observer
            self._add(key, answered, request.progress.rows, tuple(observer.ignored))
            return answered

        return answer_from_cache

    def _hit(self, request: Request[AnswerT], cached: _Cached) -> AnswerT:
        if self._metrics is not None:
            self._metrics.hits.add()
            self._metrics.rows.set(self._rows)  # After the way back to this version, it is that of another one.
        request.progress.start()
        request.progress.rows = cached.rows
        if cached.ignored:
            request.observer.columns_ignored(cached.ignored)
        answer: AnswerT = cached.answer  # Equal keys are of requests of the same class.
        return answer

    def _add(self, key: Hashable, answered: object, rows: int | None, ignored: tuple[str, ...]) -> None:
        answer_size = _size_of(answered)
        if answer_size is None:
            return
        added = _Cached(answered, max(rows or 1, 1), OVERHEAD + _size_of_key(key) + answer_size, ignored)
        if added.rows > self._limits.rows or added.size > self._limits.bytes:
            return
        if (previous := self._answers.pop(key, None)) is not None:  # Two equal requests at a time.
            self._count(previous, -1)
        self._answers[key] = added
        self._count(added, 1)
        while self._rows > self._limits.rows or self._bytes > self._limits.bytes:
            self._count(self._answers.popitem(last=False)[1], -1)
        if self._metrics is not None:
            self._metrics.rows.set(self._rows)

    def _count(self, cached: _Cached, sign: int) -> None:
        self._rows += sign * cached.rows
        self._bytes += sign * cached.size


class _Observer:
    """Observer of a request that keeps the names that the model ignores, and passes all on to the call."""

    def __init__(self, observer: RequestObserver) -> None:
        self.observer = observer
        self.trace, self.is_shadowed = observer.trace, observer.is_shadowed
        self.ignored: list[str] = []

    def columns_ignored(self, names: Sequence[str]) -> None:
        """Keeps the names, and reports them to the call."""
        self.ignored += names
        self.observer.columns_ignored(names)

    def request_ended(self, progress: RequestProgress) -> None:
        """Reports the times to the call."""
        self.observer.request_ended(progress)


def _size_of_key(key: Hashable) -> int:
    return sum(map(sys.getsizeof, key)) if isinstance(key, tuple) else sys.getsizeof(key)


def _size_of(answer: object) -> int | None:
    """Returns the size of an answer in bytes; None if it is of a type that is not cached."""
    if isinstance(answer, str | bytes):
        return sys.getsizeof(answer)
    if isinstance(answer, Message):
        return answer.ByteSize()
    content = getattr(answer, "content", None)  # The body of an inference response.
    return len(content) if isinstance(content, bytes) else None
