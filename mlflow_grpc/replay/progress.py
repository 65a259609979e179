"""The progress of a replay on stderr: a bar in a terminal if rich is installed, lines elsewhere.

Rule of this module: it is the only one of the package that imports rich.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

LINE_PAUSE_S = 10.0
"""Time between two lines, in seconds."""

Show = Callable[[int, int], None]
"""Takes the number of calls that were made, and of those among them that differ."""


@contextlib.contextmanager
def progress(total: int) -> Iterator[Show]:
    """Yields a function that shows the progress.

    Args:
        total: Number of calls.

    """
    if sys.stderr is not None and sys.stderr.isatty():
        with contextlib.suppress(ImportError):
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn())
            with Progress("replaying", *columns, console=Console(stderr=True), refresh_per_second=4) as bar:
                task = bar.add_task("replaying", total=total, text="")
                yield lambda done, different: bar.update(task, completed=done, text=f"{different:,} differ")
            return
    yield _lines(total)


def _lines(total: int) -> Show:
    shown_at = time.monotonic()

    def show(done: int, different: int) -> None:
        nonlocal shown_at
        if done < total and time.monotonic() - shown_at < LINE_PAUSE_S:
            return
        shown_at = time.monotonic()
        with contextlib.suppress(OSError, ValueError):
            print(f"{done:,} of {total:,} calls, {different:,} differ", file=sys.stderr, flush=True)

    return show
