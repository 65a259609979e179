"""Which calls may come in, and how many are in.

Rule of this module: it is used from the event loop only, so a look and the step after it are one. A refusal
costs next to nothing, because under overload there are more refusals than answers.

A call is refused if there are too many, and also if those before it will take longer than it has time: waiting would
only end in DEADLINE_EXCEEDED, and a caller that is refused at once can still go elsewhere.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from enum import Enum

from mlflow_grpc.engine.throughput import Throughput
from mlflow_grpc.errors import NotReady, Overloaded


class Stage(Enum):
    """A server's life as its callers see it; the value is what they are told when it is not OPEN."""

    LOADING = "The model is still being loaded. Try again in a moment."
    OPEN = ""
    DRAINING = "The server is shutting down. Try again: another server may take the call."


LEAST_PAUSE_S, MOST_PAUSE_S = 0.01, 5.0
"""Within which a caller that is refused is asked to come again, in seconds."""

STREAMS_SHARE = 0.5
"""How much of the room streams may take up: what they send waits for its turn, and calls still come in."""

LEAST_ON_THE_WAY = 128
"""So many calls may be on their way in at a time, of which nothing has been read, where less than these may be in."""


class Admission:
    """Lets calls in while the stage is OPEN and there is room, and tells when the last one has left."""

    def __init__(
        self,
        *,
        most_calls: int,
        most_bytes: int,
        at_once: int,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        most_calls: The most calls that are in at a time, waiting or running.
        most_bytes: The most that their payloads may come to, and the answers that callers have not read yet; one
            may be larger if it is alone.
        at_once: How many calls run at a time; more have to wait.
        timeout_s: The time limit of a call in seconds, whatever its caller's deadline is.
        clock: Gives the time in seconds.
        """
        self.stage = Stage.LOADING
        self.present = 0
        """Calls that have arrived, of which some may still be on the way in."""
        self.in_flight = 0
        """Calls that have been let in."""
        self.unread = 0
        """Large answers that callers have not read yet."""
        self._bytes = 0
        self._unread_bytes = 0
        self._most_calls = most_calls
        self._most_on_the_way = max(most_calls, LEAST_ON_THE_WAY)
        self._most_bytes = most_bytes
        self._at_once = at_once
        self._timeout_s = timeout_s
        self._clock = clock
        self.throughput = Throughput()
        self._changed = 0.0  # When a call last came in or left.
        self._in_line: deque[tuple[asyncio.Future[None], int]] = deque()  # Of streams, for room.
        self._empty = asyncio.Event()
        self._empty.set()

    def arrive(self, time_remaining_s: Callable[[], float | None] = lambda: None) -> None:
        """Takes note of a call of which nothing has been read, which has to `depart` again.

        Args:
            time_remaining_s: Gives how long the caller waits, in seconds; None if there is no limit. Asked only while
                calls wait.

        Raises:
            NotReady: The model is loading, or the server is draining.
            Overloaded: There are as many calls as there may be, in or on their way, or those before it take too long.

        """
        self.check()
        if self.in_flight > self._at_once:
            self._check_wait(time_remaining_s())
        if self.present - self.in_flight >= self._most_on_the_way:
            raise Overloaded(
                "As many calls have begun, and sent no whole request yet, as the server takes. Try again later.",
                retry_after_s=self._pause_s(),
            )
        self.present += 1

    def depart(self) -> None:
        """A call that arrived has ended."""
        self.present -= 1

    def check(self) -> None:
        """Refuses a call if there is no room for another one.

        Raises:
            NotReady: The model is loading, or the server is draining.
            Overloaded: There are as many calls as there may be.

        """
        if self.stage is not Stage.OPEN:
            raise NotReady(self.stage.value)
        if self.in_flight >= self._most_calls:
            raise Overloaded(
                "The server has as many calls waiting as it takes. Try again later, or more slowly.",
                retry_after_s=self._pause_s(),
            )

    def _check_wait(self, time_remaining_s: float | None) -> None:
        wait_s = self.throughput.wait_s(self.present + 1)
        limit_s = self._timeout_s if time_remaining_s is None else min(self._timeout_s, time_remaining_s)
        if wait_s is not None and wait_s > limit_s:
            raise Overloaded(
                "The calls that wait already take longer than this one has time. Try again later, or more slowly.",
                retry_after_s=min(max(wait_s - limit_s / 2, LEAST_PAUSE_S), MOST_PAUSE_S) * _spread(),
            )

    def enter(self, size: int) -> None:
        """Lets a call in, which has to `leave` again.

        Args:
            size: The size of its payload, in bytes or characters.

        Raises:
            NotReady: The model is loading, or the server is draining.
            Overloaded: There is no room for it.

        """
        self.check()
        if self.in_flight and self._bytes + size > self._most_bytes:
            raise Overloaded(
                "The payloads that wait in the server are as large as it takes. Try again later, or more slowly.",
                retry_after_s=self._pause_s(),
            )
        self._let_in(size)

    def _let_in(self, size: int) -> None:
        if not self.in_flight:
            self._empty.clear()
        now = self._clock()
        if self.in_flight > self._at_once:
            self.throughput.passed(now - self._changed, self.in_flight)
        self._changed = now
        self.in_flight += 1
        self._bytes += size

    def leave(self, size: int, *, answered: bool = True) -> None:
        """A call that was let in has ended.

        Args:
            size: As it was then.
            answered: Whether the model has run for it; not if it was given up while it waited.

        """
        now = self._clock()
        if self.in_flight > self._at_once:
            self.throughput.passed(now - self._changed, self.in_flight, answered=answered)
        self._changed = now
        self._bytes -= size
        self.in_flight -= 1
        if self._in_line:
            self._let_in_those_in_line()
        if not self.in_flight and not self.unread:
            self._empty.set()

    def hold(self, size: int) -> None:
        """Takes note of an answer that goes out, which has to be `release`d when its caller has read it.

        Args:
            size: Its size in bytes.

        Raises:
            Overloaded: Those that have not been read are as large as they may be.

        """
        if self.unread and self._unread_bytes + size > self._most_bytes:
            raise Overloaded(
                "The answers that callers have not read yet are as large as the server keeps. Read them, or try again "
                "later.",
                retry_after_s=MOST_PAUSE_S,
            )
        self.unread += 1
        self._unread_bytes += size
        self._empty.clear()

    def release(self, size: int) -> None:
        """An answer has been read, or its caller has gone; `size` as it was then."""
        self.unread -= 1
        self._unread_bytes -= size
        if not self.in_flight and not self.unread:
            self._empty.set()

    async def enter_in_turn(self, size: int) -> None:
        """Lets a message of a stream in, in its turn, and takes note of it; it has to `leave_in_turn`.

        Nothing overtakes it, so a large one gets its room too. One that waits already is let in when the server drains.

        Args:
            size: Its size, in bytes or characters.

        Raises:
            NotReady: The model is loading, or the server is draining.

        """
        if self.stage is not Stage.OPEN:
            raise NotReady(self.stage.value)
        if not self._in_line and self._has_room_for_streams(size):
            self._let_in_turn(size)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_line.append((turn, size))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave_in_turn(size)
            else:
                self._let_in_those_in_line()  # Those behind it, if it was the first; it is taken out there.
            raise

    def leave_in_turn(self, size: int, *, answered: bool = True) -> None:
        """A message of a stream that was let in has ended; see `leave`."""
        self.present -= 1
        self.leave(size, answered=answered)

    def _has_room_for_streams(self, size: int) -> bool:
        return not self.in_flight or (
            self.in_flight < self._most_calls * STREAMS_SHARE and self._bytes + size <= self._most_bytes * STREAMS_SHARE
        )

    def _let_in_turn(self, size: int) -> None:
        self.present += 1
        self._let_in(size)

    def _let_in_those_in_line(self) -> None:
        while self._in_line and (self._in_line[0][0].done() or self._has_room_for_streams(self._in_line[0][1])):
            turn, size = self._in_line.popleft()
            if not turn.done():
                self._let_in_turn(size)
                turn.set_result(None)

    async def wait_until_empty(self) -> None:
        """Returns once no call that was let in and no large answer is left; at once if there is none."""
        while self.in_flight or self.unread:  # A call leaves just before its large answer is held.
            await self._empty.wait()

    def _pause_s(self) -> float:
        """After how long half of the calls will have left; spread, so that not all come again at once."""
        silent_s = self._clock() - self._changed
        half_s = max((self.throughput.wait_s(self.in_flight) or 0.0) / 2, silent_s / 2, LEAST_PAUSE_S)
        return min(half_s, MOST_PAUSE_S) * _spread()


def _spread() -> float:
    """A factor that keeps callers from coming again all at once."""
    return random.uniform(0.75, 1.25)  # noqa: S311 - nothing secret
