"""A batcher for tests: work that waits at a gate, requests of words, and a load that the test sets."""

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from mlflow_grpc.engine.batching.batcher import Batcher
from mlflow_grpc.engine.progress import RequestProgress
from mlflow_grpc.engine.requests import NoObserver, Request
from mlflow_grpc.engine.servable import FastPath, ServableModel
from mlflow_grpc.engine.thread_pool import ModelThreadPool
from mlflow_grpc.payload.codec import ModelInput
from tests.support.models import FunctionModel, PlainCodec


class Work:
    """Predicts `<row>` for each row. It can be held at its gate, and fails on rows with the word `poison`."""

    def __init__(self):
        self.batches = []
        self.threads = []  # Threads that ran it.
        self.takes_s = 0.0  # How long a batch occupies its thread.
        self.by_themselves = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.wrong_count = False

    def hold_next(self):
        """Gives later batches a new gate; running batches keep theirs."""
        self.gate = threading.Event()
        return self.gate

    def predict(self, members):
        gate = self.gate
        rows = [member.row for member in members]
        self.batches.append(rows)
        self.threads.append(threading.get_ident())
        busy_until_s = time.thread_time() + self.takes_s
        while time.thread_time() < busy_until_s:
            pass
        self.entered.release()
        assert gate.wait(30)
        if any("poison" in row for row in rows):
            raise ValueError("poison")
        predictions = [f"<{row}" for row in rows]
        return predictions[:-1] if self.wrong_count and len(rows) > 1 else predictions


class WorkModel(FunctionModel):
    """Predicts `<row>` for one row by itself; raises KeyError for a row with the word `poison`."""

    def __init__(self, work):
        super().__init__(self._predict_alone)
        self.work = work

    def _predict_alone(self, row):
        self.work.by_themselves.append(row)
        if "poison" in row:
            raise KeyError(row)
        return f"<{row}>"


@dataclass(frozen=True)
class WordRequest(Request[str]):
    """A request of one word, which also makes up its rows.

    The word `odd` has no rows, `broken` fails to decode, and `unwritable` has no answer as rows.
    """

    row: str
    count: int = 1
    size: int = 10
    observer: NoObserver = field(default_factory=NoObserver)
    progress: RequestProgress = field(default_factory=RequestProgress)

    def decode_rows(self, model):
        if "broken" in self.row:
            raise ValueError(self.row)
        return None if "odd" in self.row else self

    def encode_rows(self, model, predictions):
        if "unwritable" in self.row:
            raise ValueError(self.row)
        return f"{predictions}>"

    def decode(self, model):
        return ModelInput(self.row)

    def encode(self, model, predictions, decoded):
        return predictions

    def explain(self, model, cause):
        raise AssertionError("no test refuses a word")


@dataclass(frozen=True)
class HangingRequest(WordRequest):
    """A request without rows whose decoding waits for its gate."""

    gate: threading.Event = field(default_factory=threading.Event)

    def decode_rows(self, model):
        return None

    def decode(self, model):
        assert self.gate.wait(30)
        return super().decode(model)


def soon(seconds=30.0):
    return time.monotonic() + seconds


def servable(work, **options):
    """Makes a model whose fast path is `work`; options are those of FastPath."""
    no_decoder: Any = None
    return ServableModel(WorkModel(work), PlainCodec(), FastPath(no_decoder, work, **options))


class QueueLoad:
    """The load of a server that has no calls except those in the batcher of a bench."""

    def __init__(self, bench):
        self._bench = bench

    @property
    def open_calls(self):
        return len(self._bench.batcher._pending)

    admitted_requests = open_calls


class Bench:
    """A batcher and its work, inside a running event loop."""

    def __init__(self, *, threads=2, max_rows=64, max_wait_s=30.0, inline=False, load=None):
        self.work = Work()
        self.threads = ModelThreadPool(threads)
        model = servable(self.work, max_rows=max_rows, max_wait_s=max_wait_s, inline=inline)
        self.batcher = Batcher(self.threads, model, model.fast_path, load or QueueLoad(self))

    def call(self, row, *, deadline=None, **options):
        return asyncio.create_task(self.batcher.predict(WordRequest(row, **options), deadline=deadline or soon()))

    async def hold(self, row="first"):
        """Starts a call that stays in the model until the gate opens."""
        self.work.gate.clear()
        task = self.call(row)
        assert await asyncio.to_thread(self.work.entered.acquire, timeout=30)
        return task


def run(check):
    asyncio.run(asyncio.wait_for(check(), 60))


async def turn(times=3):
    for _ in range(times):
        await asyncio.sleep(0)


async def until(condition) -> None:
    """Runs the event loop until a condition holds."""
    deadline = soon()
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0)


class Load:
    """Numbers of calls in the server, set by the test."""

    def __init__(self, open_calls, admitted_requests):
        self.open_calls = open_calls
        self.admitted_requests = admitted_requests
