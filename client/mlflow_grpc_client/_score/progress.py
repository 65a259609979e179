"""The progress of a run on stderr: a bar in a terminal, lines elsewhere.

Rule of this module: it shows numbers that it is given.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

LINE_PAUSE_S = 10.0
"""Seconds between lines where there is no terminal."""


@dataclass
class Figures:
    """The state of a run."""

    done: float
    """The share of the input that is scored, from 0 to 1."""
    rows: int
    """Rows that have been read and scored or refused, with those of the run that is resumed."""
    new_rows: int
    """Those of this run."""
    errors: int


class Progress(Protocol):
    """Shows the progress."""

    def show(self, figures: Figures, *, is_last: bool = False) -> None:
        """Shows the state of a run."""

    def writing(self, done: float) -> None:
        """Shows the share of the output that is written, from 0 to 1."""


@contextlib.contextmanager
def progress(clock: Any = time.monotonic) -> Iterator[Progress]:
    """A bar if stderr is a terminal and rich is installed, and lines otherwise."""
    if sys.stderr is not None and sys.stderr.isatty():
        with contextlib.suppress(ImportError):
            from mlflow_grpc_client._score.bar import Bar

            with Bar(clock) as bar:
                yield bar
            return
    yield Lines(clock)


class Pace:
    """The rate of a run and its time left."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._started_at = clock()
        self._done_before: float | None = None

    def of(self, figures: Figures) -> tuple[float, float | None]:
        """Rows a second, and the seconds that are left; None while they are unknown."""
        elapsed_s = self._clock() - self._started_at
        if self._done_before is None:
            # What an earlier run has scored took this one no time.
            self._done_before = figures.done * (1 - figures.new_rows / figures.rows) if figures.rows else 0.0
        share = figures.done - self._done_before
        left_s = elapsed_s * (1 - figures.done) / share if share > 0 else None
        return (figures.new_rows / elapsed_s if elapsed_s > 0 else 0.0), left_s


class Lines:
    """A line of text every few seconds."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._pace = Pace(clock)
        self._shown_at = clock()

    def show(self, figures: Figures, *, is_last: bool = False) -> None:
        """Prints a line, unless the last one is recent."""
        if not is_last and self._clock() - self._shown_at < LINE_PAUSE_S:
            return
        self._shown_at = self._clock()
        rate, left_s = self._pace.of(figures)
        left = "" if left_s is None or is_last else f", {duration(left_s)} left"
        say(f"{100 * figures.done:.0f} %, {figures.rows:,} rows, {rate:,.0f} rows/s, {figures.errors:,} errors{left}")

    def writing(self, done: float) -> None:
        """Prints nothing: writing takes a small share of a run."""


def say(text: str) -> None:
    """Prints a line to stderr."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A duration for people, such as 1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
