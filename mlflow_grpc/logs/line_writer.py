"""A queue of log lines, which its own thread writes to a stream.

Rule of this module: no event loop waits for the stream. A reader that stops reading, such as a log collector that
hangs, blocks no call. Unwritten lines are kept up to a limit; lost lines beyond it are counted and reported. Threads
without an event loop that write faster than the stream takes lines are slowed down to its pace.
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
"""Maximum time that a line waits to be written, in seconds."""

MAX_LINES = 256
"""Number of queued lines that are written at once."""

MAX_CHARACTERS = 8 * 1024 * 1024
"""Maximum number of characters in the queue; further lines are lost."""

SLOWDOWN_CHARACTERS = MAX_CHARACTERS // 2
"""Number of queued characters from which threads without an event loop wait for the stream."""

STALL_S = 1.0
"""Time without progress after which the stream counts as stalled and is not waited for, in seconds."""


class LineWriter:
    """Writes lines in order, several times a second or when a flush is requested; used from any thread."""

    def __init__(self, stream: TextIO, *, prepare: Callable[[], object], make_loss_line: Callable[[int], str]) -> None:
        """Starts the thread.

        Args:
            stream: Where lines go; it has a file descriptor.
            prepare: Called in the thread before it writes, to put further lines.
            make_loss_line: Makes the line that reports a number of lost lines.

        """
        # Bypasses the stream's own buffer: its lock is held while a write waits, and a process that is forked then
        # inherits the lock and never gets it.
        self._file = io.FileIO(stream.fileno(), "w", closefd=False)
        self._encoding = stream.encoding
        self._prepare = prepare
        self._make_loss_line = make_loss_line
        self._reset()
        self._is_threaded = True
        os.register_at_fork(after_in_child=self._reset_in_child)
        threading.Thread(target=self._run, name="write-log", daemon=True).start()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._lines: list[str] = []
        self._queued = self._written = 0  # Characters.
        self._last_progress = 0.0  # When characters were last written, or the first queued line came.
        self._lost = 0
        self._flush_requested = False

    def _reset_in_child(self) -> None:
        """Drops the parent's lines, which the parent writes; a forked process has none of its threads."""
        self._reset()
        self._is_threaded = False

    def wait_for_room(self) -> None:
        """Waits while lines come faster than the stream takes them; call it without holding a lock."""
        if self._queued - self._written >= SLOWDOWN_CHARACTERS and self._is_threaded and not _has_event_loop():
            self._wait_until_written(self._queued - SLOWDOWN_CHARACTERS, since=0.0)

    def _wait_until_written(self, characters: int, *, since: float) -> None:
        """Waits until a total of characters is written, or the stream has stalled since a point in time."""
        with self._lock:
            while self._written < characters and time.monotonic() - max(since, self._last_progress) < STALL_S:
                self._changed.wait(STALL_S)

    def put(self, line: str, *, soon: bool) -> None:
        """Queues a line.

        Args:
            line: The line without its line break.
            soon: True to write it, and the lines before it, as soon as possible.

        """
        with self._lock:
            if self._queued - self._written >= MAX_CHARACTERS:
                self._lost += 1
                return
            if self._queued == self._written:
                self._last_progress = time.monotonic()
            self._lines.append(line)
            self._queued += len(line)
            if soon or len(self._lines) >= MAX_LINES:
                self._flush_requested = True
                self._changed.notify_all()
        if not self._is_threaded:
            self._write_lines()

    def flush(self) -> None:
        """Waits until all queued lines are written, but not for a stalled stream."""
        with self._lock:
            self._flush_requested = True
            self._changed.notify_all()
        if self._is_threaded:
            self._wait_until_written(self._queued, since=time.monotonic())

    def _run(self) -> None:
        while True:
            with self._lock:
                self._changed.wait_for(lambda: self._flush_requested, INTERVAL_S)
                self._flush_requested = False
            self._prepare()
            self._write_lines()

    def _write_lines(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
            lost, self._lost = self._lost, 0
        if lost:
            loss_line = self._make_loss_line(lost)
            lines.append(loss_line)
            with self._lock:
                self._queued += len(loss_line)
        for group in _groups(lines):
            with contextlib.suppress(OSError):  # A full disk or a closed pipe must not cost an answer.
                self._write("\n".join([*group, ""]).encode(self._encoding, errors="backslashreplace"))
            with self._lock:
                self._written += sum(map(len, group))
                self._last_progress = time.monotonic()
                self._changed.notify_all()

    def _write(self, data: bytes) -> None:
        """Writes lines in one piece; other workers, which share the stream, wait meanwhile."""
        with contextlib.suppress(OSError):  # On file systems without locks, long lines may be split.
            fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            unwritten = memoryview(data)
            while unwritten:
                count = self._file.write(unwritten)
                if count is None:  # The stream was made non-blocking, and it is full.
                    select.select([], [self._file], [])
                else:
                    unwritten = unwritten[count:]
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
    """Groups lines so that the kernel does not mix them with what a model's processes write to the same pipe."""
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
