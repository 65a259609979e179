"""Lines on their way to a stream, which a thread of its own writes.

Rule of this module: no event loop waits for the stream. A reader that stops reading, as a collector does that hangs,
holds up nobody: what it leaves is kept up to a bound, and what is lost beyond it is counted and told. Whoever else
writes faster than a reader reads goes at its pace.
"""

import asyncio
import contextlib
import fcntl
import io
import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

INTERVAL_S = 0.2
"""How long a line may wait to be written, in seconds."""

MOST_LINES = 256
"""How many lines wait at the most while the stream takes them."""

MOST_CHARACTERS = 8 * 1024 * 1024
"""How many characters are kept while the stream takes nothing."""

MANY_CHARACTERS = MOST_CHARACTERS // 2
"""From how many waiting characters on threads without an event loop wait for the stream."""

STALL_S = 1.0
"""How long the stream must have taken nothing, in seconds, for nobody to wait for it any more."""


class LineWriter:
    """Writes lines in their order, some times a second or when asked to; used from any thread."""

    def __init__(self, stream: TextIO, *, prepare: Callable[[], object], tell_lost: Callable[[int], str]) -> None:
        """Args:
        stream: Where lines go; it has a file descriptor.
        prepare: Is called in the thread before it writes, to put what it can.
        tell_lost: Makes the line that says how many lines were lost.
        """
        # Past the stream's own buffer: its lock is held while a write waits, and a process that is forked then
        # inherits it for ever.
        self._file = io.FileIO(stream.fileno(), "w", closefd=False)
        self._encoding = stream.encoding
        self._prepare = prepare
        self._tell_lost = tell_lost
        self._forget()
        self._is_threaded = True
        os.register_at_fork(after_in_child=self._go_on_in_child)
        threading.Thread(target=self._run, name="write-log", daemon=True).start()

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._lines: list[str] = []
        self._came = self._gone = 0  # Characters.
        self._last_gone = 0.0  # When some went, or the first of those that wait came.
        self._lost = 0
        self._is_asked = False

    def _go_on_in_child(self) -> None:
        """A forked process has none of the threads, but the parent's lines, which the parent writes."""
        self._forget()
        self._is_threaded = False

    def wait_for_room(self) -> None:
        """Waits while more lines come than the stream takes; to be called without a lock that others need."""
        if self._came - self._gone >= MANY_CHARACTERS and self._is_threaded and not _has_event_loop():
            self._wait_until_gone(self._came - MANY_CHARACTERS, since=0.0)

    def _wait_until_gone(self, characters: int, *, since: float) -> None:
        """Waits until so many have gone in all, or none has for some time, counted from a point in time on."""
        with self._lock:
            while self._gone < characters and time.monotonic() - max(since, self._last_gone) < STALL_S:
                self._news.wait(STALL_S)

    def put(self, line: str, *, soon: bool) -> None:
        """Takes a line.

        Args:
            line: Without the line break at its end.
            soon: Whether it is to be written as soon as may be, and what came before it.

        """
        with self._lock:
            if self._came - self._gone >= MOST_CHARACTERS:
                self._lost += 1
                return
            if self._came == self._gone:
                self._last_gone = time.monotonic()
            self._lines.append(line)
            self._came += len(line)
            if soon or len(self._lines) >= MOST_LINES:
                self._is_asked = True
                self._news.notify_all()
        if not self._is_threaded:
            self._write_lines()

    def flush(self) -> None:
        """Waits until what is there is written, but not for a reader that does not read."""
        with self._lock:
            self._is_asked = True
            self._news.notify_all()
        if self._is_threaded:
            self._wait_until_gone(self._came, since=time.monotonic())

    def _run(self) -> None:
        while True:
            with self._lock:
                self._news.wait_for(lambda: self._is_asked, INTERVAL_S)
                self._is_asked = False
            self._prepare()
            self._write_lines()

    def _write_lines(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
            lost, self._lost = self._lost, 0
        if lost:
            told = self._tell_lost(lost)
            lines.append(told)
            with self._lock:
                self._came += len(told)
        for group in _groups(lines):
            with contextlib.suppress(OSError):  # A full disk or a closed pipe must not cost an answer.
                self._write("\n".join([*group, ""]).encode(self._encoding, errors="backslashreplace"))
            with self._lock:
                self._gone += sum(map(len, group))
                self._last_gone = time.monotonic()
                self._news.notify_all()

    def _write(self, data: bytes) -> None:
        """Writes some lines in one piece: other workers, which have the same stream, wait meanwhile."""
        with contextlib.suppress(OSError):  # Where there are no locks, long lines may be broken up.
            fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            rest = memoryview(data)
            while rest:
                count = self._file.write(rest)
                if count is None:  # Somebody has made it non-blocking, and it is full.
                    select.select([], [self._file], [])
                else:
                    rest = rest[count:]
        finally:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN)


def _has_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _groups(lines: Iterable[str]) -> Iterator[list[str]]:
    """Lines in groups that the kernel does not break up by what processes of models write into the same pipe."""
    group: list[str] = []
    room = select.PIPE_BUF
    for line in lines:
        if group and len(line) >= room:
            yield group
            group, room = [], select.PIPE_BUF
        group.append(line)
        room -= len(line) + 1
    if group:
        yield group
