"""The progress of a run on stderr: a bar in a terminal, lines elsewhere.

Rule of this module: it shows numbers that it is given.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol

from mlflow_grpc_client._score.pace import Figures, Pace, duration

LINE_PAUSE_S = 10.0
"""Seconds between lines where there is no terminal."""


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
