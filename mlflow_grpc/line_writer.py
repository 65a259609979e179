"""Lines on their way to a stream, which a thread of its own writes.

Rule of this module: only that thread waits for the stream. A reader that stops reading, as a collector does that hangs,
holds up nobody: what it leaves is kept up to a bound, and what is lost beyond it is counted and told.
"""

import contextlib
import io
import os
import select
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

INTERVAL_S = 0.2
"""How long a line may wait to be written, in seconds."""

MOST_LINES = 256
"""How many lines wait at the most while the stream takes them."""

MOST_CHARACTERS = 8 * 1024 * 1024
"""How many characters are kept while the stream takes nothing."""

FLUSH_S = 1.0
"""How long to wait at the most for what is there to be written, in seconds."""


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
        self._characters = 0  # Of the lines that wait and those that are being written.
        self._lost = 0
        self._is_asked = False

    def _go_on_in_child(self) -> None:
        """A forked process has none of the threads, but the parent's lines, which the parent writes."""
        self._forget()
        self._is_threaded = False

    def put(self, line: str, *, soon: bool) -> None:
        """Takes a line.

        Args:
            line: Without the line break at its end.
            soon: Whether it is to be written as soon as may be, and what came before it.

        """
        with self._lock:
            if self._characters and self._characters + len(line) > MOST_CHARACTERS:
                self._lost += 1
                return
            self._lines.append(line)
            self._characters += len(line)
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
            self._news.wait_for(lambda: not (self._characters and self._is_threaded), FLUSH_S)

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
        written = sum(map(len, lines))
        if lost:
            lines.append(self._tell_lost(lost))
        if not lines:
            return
        for group in _groups(f"{line}\n".encode(self._encoding, errors="backslashreplace") for line in lines):
            with contextlib.suppress(OSError):  # A full disk or a closed pipe must not cost an answer.
                self._write(group)
        with self._lock:
            self._characters -= written
            self._news.notify_all()

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            count = self._file.write(rest)
            if count is None:  # Somebody has made it non-blocking, and it is full.
                select.select([], [self._file], [])
            else:
                rest = rest[count:]


def _groups(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines in groups that the kernel does not break up by what other processes write into the same pipe."""
    group = b""
    for line in lines:
        if group and len(group) + len(line) > select.PIPE_BUF:
            yield group
            group = b""
        group += line
    if group:
        yield group
