"""engine/answer_cache.py: what is answered from the cache, and its limits."""

import asyncio
from typing import Any

import pytest

from mlflow_grpc.cache_config import CacheLimits
from mlflow_grpc.engine.answer_cache import MAX_SIZE, OVERHEAD, AnswerCache
from mlflow_grpc.engine.requests import NoObserver, TextRequest
from mlflow_grpc.engine.time_limit import TimeLimit
from mlflow_grpc.errors import InvalidPayload
from mlflow_grpc.telemetry.metrics import ALONE

LIMIT = TimeLimit(60, None)


class Cached:
    """A cache around a model that answers a text in capitals, and counts its runs."""

    def __init__(self, **limits: Any) -> None:
        self.metrics = ALONE.metrics(1).add_model(rpcs=0).cache
        self.runs: list[str] = []
        self.answer = AnswerCache(CacheLimits(**limits), self.metrics).around(self._run)

    async def _run(self, request: Any, size: int, limit: TimeLimit) -> Any:
        self.runs.append(request.payload)
        if request.payload == "bad":
            raise InvalidPayload("It is bad.")
        if "ignored" in request.payload:
            request.observer.columns_ignored(["c"])
        request.progress.rows = request.payload.count(" ") + 1
        return str(request.payload).upper()

    def __call__(self, text: str, content_type: str | None = None, observer: Any = None) -> str:
        request = TextRequest(text, content_type, observer or NoObserver())

        async def call() -> str:
            answered: str = await self.answer(request, request.size, LIMIT)
            return answered

        answered = asyncio.run(call())
        assert request.progress.rows == text.count(" ") + 1
        return answered


def test_equal_payloads_are_answered_once():
    """The answer and the number of rows are the same; another content type is another payload."""
    cached = Cached(rows=10)
    assert [cached("a"), cached("a"), cached("b"), cached("a", "text/csv")] == ["A", "A", "B", "A"]
    assert cached.runs == ["a", "b", "a"]
    assert (cached.metrics.hits.total(), cached.metrics.misses.total(), cached.metrics.rows.total()) == (1, 3, 3)


def test_the_least_recently_used_rows_make_room():
    """An answer counts with its rows, and one with more rows than the cache has is not kept."""
    cached = Cached(rows=3)
    for text in ("a", "b", "a", "c d", "a", "b", "1 2 3 4", "1 2 3 4"):
        cached(text)
    assert cached.runs == ["a", "b", "c d", "b", "1 2 3 4", "1 2 3 4"]
    assert cached.metrics.rows.total() == 2


def test_bytes_are_limited():
    """Few large answers fill the cache, whatever the number of rows."""
    cached = Cached(rows=1000, bytes=2**16)
    texts = [letter * 10_000 for letter in "abcd"]
    for text in (*texts, texts[3], texts[0]):
        cached(text)
    assert len(cached.runs) == 5
    assert 3 * (OVERHEAD + 20_000) <= 2**16


def test_large_payloads_are_not_looked_up():
    """The event loop does not compute the hash of megabytes."""
    cached = Cached(rows=1000)
    for _ in range(2):
        cached("x" * (MAX_SIZE + 1))
    assert len(cached.runs) == 2
    assert cached.metrics.misses.total() == 0


def test_errors_are_not_kept():
    """A payload that is refused is refused by the model again."""
    cached = Cached(rows=10)
    for _ in range(2):
        with pytest.raises(InvalidPayload):
            cached("bad")
    assert cached.runs == ["bad", "bad"]


class Observer(NoObserver):
    """Keeps the names of ignored columns."""

    def __init__(self) -> None:
        self.ignored: list[str] = []

    def columns_ignored(self, names: Any) -> None:
        self.ignored += names


def test_ignored_columns_are_reported_for_cached_answers_too():
    """Callers of the first and of a later equal request get the same names."""
    cached, observers = Cached(rows=10), [Observer(), Observer()]
    for observer in observers:
        cached("ignored", observer=observer)
    assert [observer.ignored for observer in observers] == [["c"], ["c"]]
    assert len(cached.runs) == 1
