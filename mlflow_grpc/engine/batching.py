"""Puts the rows of calls that wait at the same time into one call of the model.

Rule of this module: batching never shows. Each caller gets its own rows, or the error that it would have got
alone: a batch that fails, or gives another number of predictions than rows, is halved until those at fault
are found, and they are run the ordinary way. A caller that leaves takes only itself along.

Calls are decoded there too, one after the other: code that runs many times in a row runs several times faster than code
that runs once between two turns of the event loop. A batch that takes less than handing it to a thread and back is
run by the event loop itself: one of no more rows than were tried at load, once, and only as long as none took long.

It adapts. A call that is alone starts at once. Where several are in the server at a time, a batch is not started before
as many wait as were there lately, unless no more come for a moment. What comes while a batch runs makes up the next
one; only when a batch takes long is another one started beside it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from mlflow_grpc.engine.members import Batch, Batchable, Crowd, Member, Request, Rows
from mlflow_grpc.engine.progress import InModel
from mlflow_grpc.engine.threads import ModelThreads

QUIET_S, QUIET_SHARE = 0.001, 0.25
"""How long no call must have come for a batch of less than were expected: in seconds, and as a share of its time."""

PATIENCE_S, PATIENCE_TIMES = 0.02, 2.0
"""The longest that a call is held back while nothing runs: in seconds, and in times of what batches take."""

MOST_SIZE_HERE = 65_536
"""The most that the payloads of a batch that the event loop runs may come to: less than a millisecond of decoding."""

LONGEST_HERE_S, PAUSE_HERE_S = 0.03, 60.0
"""Once such a batch took longer than the one, of the event loop's own time, threads run them for the other: in seconds.
"""

MOST_DEPARTED = 256
"""How many calls that have gone may be kept in line."""


class Batcher:
    """Collects calls to one model and runs them in batches; used from the event loop only."""

    def __init__(
        self,
        threads: ModelThreads,
        work: Batchable,
        *,
        most_rows: int,
        longest_wait_s: float,
        inline: bool = False,
        crowd: Crowd | None = None,
    ) -> None:
        """Args:
        threads: Where batches run.
        work: Predicts their rows.
        most_rows: The most rows in a batch; 1 runs each call by itself.
        longest_wait_s: How long a call may wait for others or for a running batch, in seconds, before its own is
            started.
        inline: Whether batches are so quick that the event loop runs them itself.
        crowd: The calls that are in the server; if not given, those that have got here.
        """
        self._crowd = crowd or self
        self._threads = threads
        self._work = work
        self._most_rows = most_rows
        self._longest_wait_s = longest_wait_s
        self._here_from = 0.0 if inline else float("inf")  # When the event loop may run batches itself again.
        self._waiting: deque[Member] = deque()
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

    async def run(self, request: Request, *, deadline: float) -> Any:
        """The answer to one call.

        Args:
            request: What is asked.
            deadline: On the clock of `time.monotonic`, in seconds.

        Raises:
            TimeoutError: The deadline passed.
            Exception: Whatever the request raises when it is answered by itself.

        """
        loop = asyncio.get_running_loop()
        member = Member(request, deadline, loop.create_future())
        self._last_came = member.since
        if deadline < self._expires:
            self._expire_at(deadline)
        self._waiting.append(member)
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
            elif not self._inside:
                self._waiting.clear()
            elif len(self._waiting) > max(MOST_DEPARTED, 2 * len(self._inside)):
                # Behind a batch that hangs, calls that have gone must not be kept with their data.
                self._waiting = deque(each for each in self._waiting if each in self._inside)
            del member  # An error's traceback leads here, and from the member to the error.

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
        return len(self._waiting) >= min(self._most_rows, int(self._expected))

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
        while self._waiting and len(self._tasks) < self._threads.concurrency:
            if (wait_s := self._wait_s(now)) > 0:
                self._scheduled = loop.call_later(wait_s, self._look)
                self._due = now + wait_s
                return
            members = self._take(now)
            if now >= self._here_from and (outcomes := self._attempt_here(members)) is not None:
                self._settle(outcomes)
                if self._waiting:
                    self._look_soon(loop)
                return
            if members:
                batch = Batch(members)
                batch.task = self._start(self._run_batch(batch))

    def _wait_s(self, now: float) -> float:
        """How long the next batch has to wait, in seconds."""
        waited = now - self._waiting[0].since
        if self._tasks and now < self._here_from:
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
        hopeless = now + (self._threads.hopeless_s if len(self._waiting) > self._most_rows else 0.0)
        members: list[Member] = []
        while self._waiting and len(members) < self._most_rows:
            member = self._waiting.popleft()
            if member.deadline <= hopeless:
                member.settle(None, TimeoutError())
            if not member.future.done():
                members.append(member)
        return members

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._look()

    async def _run_batch(self, batch: Batch) -> None:
        members = batch.members
        if len(members) == 1:
            await self._run_alone(members[0], members[0].request.answer)
            return
        last = max(member.deadline for member in members)
        try:
            outcomes = await self._threads.run(lambda: self._attempt(members), deadline=last)
        except Exception as error:  # noqa: BLE001 - there is no time left, or the pool is closed: all are told
            for member in members:
                member.settle(None, error)
            return
        self._settle(outcomes)

    def _settle(self, outcomes: "list[tuple[Member, Any]]") -> None:
        """Hands out what a batch came to; those without an answer are run by themselves."""
        for member, answer in outcomes:
            if answer is not None:
                member.settle(answer, None)
            elif not member.future.done():
                self._start(self._run_alone(member, member.request.answer_checked))

    async def _run_alone(self, member: Member, answer: Callable[[], Any]) -> None:
        run = asyncio.ensure_future(self._threads.run(answer, deadline=member.deadline))
        member.future.add_done_callback(lambda _: run.cancel())
        try:
            member.settle(await run, None)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - it is the caller's
            member.settle(None, error)

    def _attempt(self, members: list[Member]) -> list[tuple[Member, Any]]:
        """Runs members together; those that have to be run by themselves have no answer."""
        decoded, outcomes = self._decode(members)
        for group in _groups(decoded, self._most_rows):
            outcomes += self._attempt_rows(group)
        return outcomes

    def _attempt_here(self, members: list[Member]) -> list[tuple[Member, Any]] | None:
        """The same in the event loop; None if that has to be done in a thread after all."""
        if sum(member.request.size for member in members) > MOST_SIZE_HERE:
            return None
        decoded, outcomes = self._decode(members)
        if sum(rows.count for _, rows in decoded) > self._most_rows:
            return None
        began_s = time.thread_time()
        answered = self._threads.context.copy().run(self._answer_rows, decoded) if decoded else []
        if time.thread_time() - began_s > LONGEST_HERE_S:
            self._here_from = time.monotonic() + PAUSE_HERE_S
        return None if answered is None else outcomes + answered

    def _decode(self, members: list[Member]) -> tuple[list[tuple[Member, Rows]], list[tuple[Member, Any]]]:
        """Members and their rows, and those that are none."""
        decoded: list[tuple[Member, Rows]] = []
        others: list[tuple[Member, Any]] = []
        for member in members:
            if member.future.done():
                continue
            rows = self._rows(member)
            if rows is None:
                others.append((member, None))
            else:
                decoded.append((member, rows))
        return decoded, others

    def _rows(self, member: Member) -> Rows | None:
        try:
            return member.request.rows()
        except Exception:  # noqa: BLE001 - what it was shows again when the call is run by itself
            return None

    def _attempt_rows(self, group: list[tuple[Member, Rows]]) -> list[tuple[Member, Any]]:
        """Runs rows together; where that fails, each half by itself."""
        now = time.monotonic()
        group = [(member, rows) for member, rows in group if not member.future.done() and now < member.deadline]
        if not group:
            return []
        if (answered := self._answer_rows(group)) is not None:
            return answered
        if len(group) == 1:
            return [(group[0][0], None)]
        half = len(group) // 2
        return self._attempt_rows(group[:half]) + self._attempt_rows(group[half:])

    def _answer_rows(self, group: list[tuple[Member, Rows]]) -> list[tuple[Member, Any]] | None:
        """The answers of members whose rows are predicted at once; None if that fails."""
        try:
            with InModel([member.request.progress for member, _ in group]):
                parts = self._work.predict([rows for _, rows in group])
            return [(member, member.request.encode(part)) for (member, _), part in zip(group, parts, strict=True)]
        except BaseException:  # noqa: BLE001 - what it was shows again when those at fault are run alone
            return None


def _groups(decoded: list[tuple[Member, Rows]], most_rows: int) -> Iterator[list[tuple[Member, Rows]]]:
    """Groups of no more than so many rows; a call that has more by itself makes up one."""
    group: list[tuple[Member, Rows]] = []
    room = most_rows
    for member, rows in decoded:
        if group and rows.count > room:
            yield group
            group, room = [], most_rows
        group.append((member, rows))
        room -= rows.count
    if group:
        yield group
