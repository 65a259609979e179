"""Puts the rows of calls that wait at the same time into one call of the model.

Rule of this module: batching never shows. Each caller gets its own rows, or the error that it would have got
alone: where a batch fails, or gives another number of predictions than rows, its members are run one by one,
the ordinary way. A caller that leaves takes only itself along.

It adapts. A call that is alone starts at once. What comes while a batch runs waits for its end and makes up
the next; only when a batch takes long is another one started beside it. Where many calls came at a time
lately, a batch is not started as long as each turn of the event loop brings more.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from mlflow_grpc.engine.threads import ModelThreads

MOST_PATIENCE_S = 0.005
"""The longest that a call is held back, while nothing runs, in seconds."""


class Batchable(Protocol):
    """How rows are run together; every method runs in a thread and may raise anything."""

    def run(self, rows: Sequence[Any]) -> list[str]:
        """The answers for the rows of several calls, in their order; raises if they cannot be told apart."""
        ...


class Member:
    """One call that waits for its answer."""

    __slots__ = ("alone", "count", "deadline", "future", "rows", "since")

    def __init__(self, rows: Any, count: int, alone: Callable[[], str], deadline: float) -> None:
        """Args:
        rows: What was decoded.
        count: How many rows that is.
        alone: Runs this call by itself, the ordinary way.
        deadline: On the clock of `time.monotonic`, in seconds.
        """
        self.rows = rows
        self.count = count
        self.alone = alone
        self.deadline = deadline
        self.since = time.monotonic()
        self.future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def settle(self, answer: str | None, error: Exception | None) -> None:
        """Gives the caller its outcome, unless it has one or has gone."""
        if self.future.done():
            return
        if error is not None or answer is None:
            self.future.set_exception(error or TimeoutError())
        else:
            self.future.set_result(answer)


class Batcher:
    """Collects calls to one model and runs them in batches; used from the event loop only."""

    def __init__(self, threads: ModelThreads, work: Batchable, *, most_rows: int, longest_wait_s: float) -> None:
        """Args:
        threads: Where batches run.
        work: How they are run.
        most_rows: The most rows in a batch; 1 runs each call by itself.
        longest_wait_s: How long a call may wait for a running batch, in seconds, before its own is started
            beside it.
        """
        self._threads = threads
        self._work = work
        self._most_rows = most_rows
        self._longest_wait_s = longest_wait_s
        self._waiting: deque[Member] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled: asyncio.Handle | None = None
        self._expected = 1.0  # Calls at a time, as seen lately.
        self._seen = 0  # Calls that waited when last looked at.

    async def run(self, rows: Any, count: int, alone: Callable[[], str], *, deadline: float) -> str:
        """The answer for the rows of one call.

        Raises:
            TimeoutError: The deadline passed.
            Exception: Whatever `alone` raises.

        """
        loop = asyncio.get_running_loop()
        member = Member(rows, count, alone, deadline)
        timer = loop.call_later(max(0.0, deadline - member.since), member.settle, None, TimeoutError())
        self._waiting.append(member)
        if self._scheduled is None or len(self._waiting) == int(self._expected):
            self._dispatch_soon(loop)
        try:
            return await member.future
        finally:
            timer.cancel()

    def _dispatch_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Calls that arrive in the same turn of the event loop are taken together."""
        if self._scheduled is not None:
            self._scheduled.cancel()
        self._scheduled = loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Starts what may be started now, and sees to it that it is called again in time."""
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        loop = asyncio.get_running_loop()
        while batch := self._due(loop):
            task = loop.create_task(self._run_batch(batch))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
            open_members = len(batch)

            def one_less(_: object, task: asyncio.Task[None] = task) -> None:
                # When the last of them has left, so has the reason to wait for the thread.
                nonlocal open_members
                open_members -= 1
                if not open_members:
                    task.cancel()

            for member in batch:
                member.future.add_done_callback(one_less)

    def _due(self, loop: asyncio.AbstractEventLoop) -> list[Member]:
        """The next batch, or none if it has to wait for a running one."""
        while self._waiting and self._waiting[0].future.done():
            self._waiting.popleft()
        if not self._waiting or len(self._tasks) >= self._threads.size:
            return []
        wait_s = self._waiting[0].since - time.monotonic()
        if self._tasks:
            wait_s += self._longest_wait_s
        elif self._seen < len(self._waiting) < int(self._expected) and wait_s + MOST_PATIENCE_S > 0:
            # More are on their way: they came in this turn of the event loop, and more were at a time lately.
            self._seen = len(self._waiting)
            self._scheduled = loop.call_soon(self._dispatch)
            return []
        if wait_s > 0:
            self._scheduled = loop.call_later(wait_s, self._dispatch)
            return []
        self._learn(len(self._waiting))
        batch: list[Member] = []
        room = self._most_rows
        while self._waiting and (not batch or self._waiting[0].count <= room):
            member = self._waiting.popleft()
            if not member.future.done():
                batch.append(member)
                room -= member.count
        return batch

    def _learn(self, waiting: int) -> None:
        """Takes note of how many calls there are at a time: at once if more, slowly if fewer than lately."""
        self._seen = 0
        self._expected = max(float(waiting), 0.8 * self._expected + 0.2 * waiting)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._dispatch()

    async def _run_batch(self, batch: list[Member]) -> None:
        last = max(member.deadline for member in batch)
        try:
            outcomes = await self._threads.run(lambda: _attempt(self._work, batch), deadline=last)
        except TimeoutError:
            return  # Each member has a timer of its own.
        except Exception as error:  # noqa: BLE001 - the pool is closed, say: all are told
            for member in batch:
                member.settle(None, error)
            return
        if outcomes is not None:
            for member, answer in outcomes:
                member.settle(answer, None)
            return
        for member in batch:
            if not member.future.done():
                task = asyncio.get_running_loop().create_task(self._run_alone(member))
                self._tasks.add(task)
                task.add_done_callback(self._ended)

    async def _run_alone(self, member: Member) -> None:
        run = asyncio.ensure_future(self._threads.run(member.alone, deadline=member.deadline))
        member.future.add_done_callback(lambda _: run.cancel())
        try:
            member.settle(await run, None)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - it is the caller's
            member.settle(None, error)


def _attempt(work: Batchable, batch: list[Member]) -> list[tuple[Member, str]] | None:
    """Runs a batch in a thread; None if its members have to be run one by one."""
    now = time.monotonic()
    members = [member for member in batch if not member.future.done() and now < member.deadline]
    if not members:
        return []
    try:
        answers = work.run([member.rows for member in members])
    except BaseException:  # noqa: BLE001 - what it was shows again when each is run alone
        return None
    return list(zip(members, answers, strict=True)) if len(answers) == len(members) else None
