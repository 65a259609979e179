"""Puts the rows of calls that wait at the same time into one call of the model.

Rule of this module: batching never shows. Each caller gets its own rows, or the error that it would have got
alone: a batch that fails, or gives another number of predictions than rows, is halved until those at fault
are found, and they are run the ordinary way. A caller that leaves takes only itself along.

It adapts. A call that is alone starts at once. Where several are in the server at a time, a batch is not
started before as many wait as were there lately, unless no more come for a moment. What comes while a batch
runs makes up the next one; only when a batch takes long is another one started beside it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from mlflow_grpc.engine.threads import ModelThreads

QUIET_S, QUIET_SHARE = 0.001, 0.25
"""How long no call must have come for a batch to start with less than were expected: in seconds, and as a share of what
batches take. The longer they take, the more is gained by waiting for one more call.
"""

PATIENCE_S, PATIENCE_TIMES = 0.02, 2.0
"""The longest that a call is held back while nothing runs: in seconds, and in times of what batches take."""


class Batchable(Protocol):
    """How rows are run together; every method runs in a thread and may raise anything."""

    def run(self, rows: Sequence[Any]) -> list[str]:
        """The answers for the rows of several calls, in their order; raises if they cannot be told apart."""
        ...


class Crowd(Protocol):
    """The calls to the model that are in the server."""

    @property
    def present(self) -> int:
        """How many there are."""
        ...

    @property
    def in_flight(self) -> int:
        """How many of them have been read."""
        ...


class Member:
    """One call that waits for its answer."""

    __slots__ = ("alone", "batch", "count", "deadline", "future", "rows", "since")

    def __init__(
        self, rows: Any, count: int, alone: Callable[[], str], deadline: float, future: "asyncio.Future[str]"
    ) -> None:
        """Args:
        rows: What was decoded.
        count: How many rows that is.
        alone: Runs this call by itself, the ordinary way.
        deadline: On the clock of `time.monotonic`, in seconds.
        future: Gets the outcome.
        """
        self.rows = rows
        self.count = count
        self.alone = alone
        self.deadline = deadline
        self.since = time.monotonic()
        self.future = future
        self.batch: _Batch | None = None

    def settle(self, answer: str | None, error: Exception | None) -> None:
        """Gives the caller its outcome, unless it has one or has gone."""
        if self.future.done():
            return
        if error is not None or answer is None:
            self.future.set_exception(error or TimeoutError())
        else:
            self.future.set_result(answer)


class _Batch:
    """Members that run together."""

    __slots__ = ("members", "open", "task")

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        self.open = len(members)
        self.task: asyncio.Task[None] | None = None
        for member in members:
            member.batch = self

    def leave(self) -> None:
        """When the last caller has left, so has the reason to wait for the thread."""
        self.open -= 1
        if not self.open and self.task is not None:
            self.task.cancel()


class Batcher:
    """Collects calls to one model and runs them in batches; used from the event loop only."""

    def __init__(
        self,
        threads: ModelThreads,
        work: Batchable,
        *,
        most_rows: int,
        longest_wait_s: float,
        crowd: Crowd | None = None,
    ) -> None:
        """Args:
        threads: Where batches run.
        work: How they are run.
        most_rows: The most rows in a batch; 1 runs each call by itself.
        longest_wait_s: How long a call may wait for others or for a running batch, in seconds, before its own is
            started.
        crowd: The calls that are in the server; if not given, those that have got here.
        """
        self._crowd = crowd or self
        self._threads = threads
        self._work = work
        self._most_rows = most_rows
        self._longest_wait_s = longest_wait_s
        self._waiting: deque[Member] = deque()
        self._waiting_rows = 0
        self._inside: set[Member] = set()  # Calls that wait or run.
        self._expires = float("inf")  # When the first of them does, at the latest.
        self._expiry: asyncio.TimerHandle | None = None
        self._most_present = 0  # Since the last batch started.
        self._expected = 1.0  # Calls at a time, as seen lately.
        self._stuck = 0  # Calls that were on their way when waiting for them came to its end.
        self._last_came = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled: asyncio.Handle | None = None
        self._due = float("inf")  # When it is to look again.

    async def run(self, rows: Any, count: int, alone: Callable[[], str], *, deadline: float) -> str:
        """The answer for the rows of one call.

        Raises:
            TimeoutError: The deadline passed.
            Exception: Whatever `alone` raises.

        """
        loop = asyncio.get_running_loop()
        member = Member(rows, count, alone, deadline, loop.create_future())
        self._last_came = member.since
        if deadline < self._expires:
            self._expire_at(deadline)
        self._waiting.append(member)
        self._waiting_rows += count
        self._inside.add(member)
        self._most_present = max(self._most_present, self._crowd.present)
        if self._scheduled is None or self._are_enough():
            self._look_soon(loop)
        try:
            return await member.future
        finally:
            self._inside.discard(member)
            if member.batch is not None:
                member.batch.leave()

    def _expire_at(self, deadline: float) -> None:
        """One timer for all members: most are answered long before it would ring."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._expires = deadline
        wait_s = max(0.0, deadline - time.monotonic())
        self._expiry = asyncio.get_running_loop().call_later(wait_s, self._expire)

    def _expire(self) -> None:
        self._expiry, self._expires = None, float("inf")
        now = time.monotonic()
        deadlines = []
        for member in self._inside:
            if member.deadline <= now:
                member.settle(None, TimeoutError())
            else:
                deadlines.append(member.deadline)
        if deadlines:
            self._expire_at(min(deadlines))

    @property
    def present(self) -> int:
        """How many calls wait or run."""
        return len(self._inside)

    in_flight = present

    def _coming(self) -> int:
        """How many calls are on their way from the wire to here, but for those that are stuck there."""
        coming = self._crowd.present - self._crowd.in_flight
        self._stuck = min(self._stuck, coming)
        return coming - self._stuck

    def _are_enough(self) -> bool:
        return self._waiting_rows >= self._most_rows or len(self._waiting) >= int(self._expected)

    def _look_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Calls that arrive in the same turn of the event loop are taken together."""
        if self._scheduled is not None:
            self._scheduled.cancel()
        self._scheduled, self._due = loop.call_soon(self._look), float("inf")

    def _look(self) -> None:
        """Starts what may be started now, and sees to it that it is called again in time."""
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        if now - self._due > QUIET_S:
            # The event loop was busy all the while: calls that came have not got here yet.
            self._last_came = now
        self._due = float("inf")
        while self._waiting and len(self._tasks) < self._threads.size:
            if (wait_s := self._wait_s(now)) > 0:
                self._scheduled = loop.call_later(wait_s, self._look)
                self._due = now + wait_s
                return
            if members := self._take(now):
                batch = _Batch(members)
                batch.task = self._start(self._run_batch(batch))

    def _wait_s(self, now: float) -> float:
        """How long the next batch has to wait, in seconds."""
        waited = now - self._waiting[0].since
        if self._tasks:
            return self._longest_wait_s - waited
        if self._are_enough():
            return 0.0
        usual_s = self._threads.usual_s
        quiet_s = max(QUIET_S, QUIET_SHARE * usual_s)
        patience_s = min(max(PATIENCE_S, PATIENCE_TIMES * usual_s), self._longest_wait_s)
        if waited >= patience_s:
            self._stuck = self._crowd.present - self._crowd.in_flight
            return 0.0
        if self._coming():
            return min(quiet_s, patience_s - waited)
        return min(quiet_s - (now - self._last_came), patience_s - waited)

    def _take(self, now: float) -> list[Member]:
        """The members of the next batch; none if all of those that waited have left."""
        self._expected = max(float(self._most_present), 0.8 * self._expected + 0.2 * self._most_present)
        self._most_present = self._crowd.present
        # Where more wait than go into a batch, those that will hardly be answered in time make room.
        hopeless = now + (self._threads.hopeless_s if self._waiting_rows > self._most_rows else 0.0)
        members: list[Member] = []
        room = self._most_rows
        while self._waiting and (not members or self._waiting[0].count <= room):
            member = self._waiting.popleft()
            self._waiting_rows -= member.count
            if member.deadline <= hopeless:
                member.settle(None, TimeoutError())
            if not member.future.done():
                members.append(member)
                room -= member.count
        return members

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._look()

    async def _run_batch(self, batch: _Batch) -> None:
        last = max(member.deadline for member in batch.members)
        try:
            outcomes = await self._threads.run(lambda: _attempt(self._work, batch.members), deadline=last)
        except TimeoutError:
            return  # The members' own deadlines have passed too.
        except Exception as error:  # noqa: BLE001 - the pool is closed, say: all are told
            for member in batch.members:
                member.settle(None, error)
            return
        for member, answer in outcomes:
            if answer is not None:
                member.settle(answer, None)
            elif not member.future.done():
                self._start(self._run_alone(member))

    async def _run_alone(self, member: Member) -> None:
        run = asyncio.ensure_future(self._threads.run(member.alone, deadline=member.deadline))
        member.future.add_done_callback(lambda _: run.cancel())
        try:
            member.settle(await run, None)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - it is the caller's
            member.settle(None, error)


def _attempt(work: Batchable, members: list[Member]) -> list[tuple[Member, str | None]]:
    """Runs members together, in a thread; those that have to be run the ordinary way have no answer."""
    now = time.monotonic()
    members = [member for member in members if not member.future.done() and now < member.deadline]
    if not members:
        return []
    try:
        answers = work.run([member.rows for member in members])
    except BaseException:  # noqa: BLE001 - what it was shows again when those at fault are run alone
        answers = []
    if len(answers) == len(members):
        return list(zip(members, answers, strict=True))
    if len(members) == 1:
        return [(members[0], None)]
    half = len(members) // 2
    return _attempt(work, members[:half]) + _attempt(work, members[half:])
