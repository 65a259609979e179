"""The figures of a run: its rate and its time left.

Rule of this module: it computes and shows nothing.
"""

from dataclasses import dataclass
from typing import Any


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


def duration(seconds: float) -> str:
    """A duration for people, such as 1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
