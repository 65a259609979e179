"""The progress bar of a run in a terminal.

Rule of this module: it is the only one that imports rich.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from mlflow_grpc_client._score.pace import Figures, Pace, duration

if TYPE_CHECKING:
    # Only for annotations; typing has it from Python 3.11 on.
    from typing_extensions import Self


class Bar:
    """A bar with rows, rows a second, errors and the time left."""

    def __init__(self, clock: Any) -> None:
        self._pace = Pace(clock)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
            refresh_per_second=4,
        )
        self._scoring = self._bar.add_task("scoring", total=1.0, text="")
        self._writing: Any = None

    def show(self, figures: Figures, *, is_last: bool = False) -> None:
        """Moves the bar."""
        rate, left_s = self._pace.of(figures)
        left = "" if left_s is None or is_last else f", {duration(left_s)} left"
        text = f"{figures.rows:,} rows, {rate:,.0f} rows/s, {figures.errors:,} errors{left}"
        self._bar.update(self._scoring, completed=figures.done, text=text, refresh=is_last)

    def writing(self, done: float) -> None:
        """Moves the bar of the output."""
        if self._writing is None:
            self._writing = self._bar.add_task("writing", total=1.0, text="")
        self._bar.update(self._writing, completed=done, refresh=done >= 1)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
