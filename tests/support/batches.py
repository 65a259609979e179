"""A batcher to look into: work that can be held at its gate, requests of words, a crowd that the test sets."""

import asyncio
import threading
import time
from dataclasses import dataclass, field

from mlflow_grpc.engine.batching import Batcher
from mlflow_grpc.engine.progress import Progress
from mlflow_grpc.engine.threads import ModelThreads


class Work:
    """Predicts `<row>` for each row; can be held at its gate, and fails on rows of the word `poison`."""

    def __init__(self):
        self.batches = []
        self.threads = []  # That ran them.
        self.takes_s = 0.0  # How long a batch keeps its thread busy.
        self.by_themselves = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.wrong_count = False

    def hold_next(self):
        """Gives the batches from now on a gate of their own; those that run keep theirs."""
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


@dataclass(frozen=True)
class Asked:
    """A request, and its rows as well; that of the word `odd` is none, and `unwritable` has no answer as one of them."""

    work: Work
    row: str
    count: int = 1
    size: int = 10
    progress: Progress = field(default_factory=Progress)

    def rows(self):
        if "broken" in self.row:
            raise ValueError(self.row)
        return None if "odd" in self.row else self

    def encode(self, predictions):
        if "unwritable" in self.row:
            raise ValueError(self.row)
        return f"{predictions}>"

    def answer(self):
        try:
            return self.encode(self.work.predict([self])[0]) if self.rows() else self.answer_checked()
        except ValueError:
            return self.answer_checked()

    def answer_checked(self):
        self.work.by_themselves.append(self.row)
        if "poison" in self.row:
            raise KeyError(self.row)
        return f"<{self.row}>"


def soon(seconds=30.0):
    return time.monotonic() + seconds


class Bench:
    """A batcher with its work, inside a running loop."""

    def __init__(self, *, threads=2, most_rows=64, longest_wait_s=30.0, inline=False, crowd=None):
        self.work = Work()
        self.threads = ModelThreads(threads)
        self.batcher = Batcher(
            self.threads,
            self.work,
            most_rows=most_rows,
            longest_wait_s=longest_wait_s,
            inline=inline,
            crowd=crowd,
        )

    def call(self, row, *, deadline=None, **more):
        return asyncio.create_task(self.batcher.run(Asked(self.work, row, **more), deadline=deadline or soon()))

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


@dataclass(frozen=True)
class Hanging:
    """A request that is answered by itself, once its gate is open."""

    work: Work
    row: str
    gate: threading.Event
    size: int = 10
    progress: Progress = field(default_factory=Progress)

    def rows(self):
        return None

    def encode(self, predictions):
        return predictions

    def answer(self):
        return self.answer_checked()

    def answer_checked(self):
        assert self.gate.wait(30)
        return f"<{self.row}>"


class Crowd:
    """Calls that are in the server, set by the test."""

    def __init__(self, present, in_flight):
        self.present = present
        self.in_flight = in_flight
