"""Where the time of a request goes, for the log: waiting for its turn, and in the model.

Rule of this module: it keeps clocks and counts, and decides nothing. A Progress is written by whoever has the request
at the moment, a thread of the model or the event loop; a Usage by the event loop alone.
"""

import time
from collections.abc import Sequence
from typing import Any


class Progress:
    """How far one request has come. Times are on the clock of `time.monotonic`, in seconds."""

    __slots__ = ("began", "came", "entered_model", "model_s", "rows")

    def __init__(self) -> None:
        self.came = time.monotonic()
        self.began: float | None = None  # When its turn came: it is decoded then.
        self.entered_model: float | None = None  # While it is in the model.
        self.model_s = 0.0
        self.rows: int | None = None

    def begin(self) -> None:
        """Its turn has come; the first time counts."""
        if self.began is None:
            self.began = time.monotonic()


class InModel:
    """The time in which the model predicts for some requests, as a context manager."""

    __slots__ = ("_members",)

    def __init__(self, members: Sequence[Progress]) -> None:
        """Args:
        members: Those of the requests that are predicted together; each has the whole time.
        """
        self._members = members

    def __enter__(self) -> None:
        now = time.monotonic()
        for member in self._members:
            member.entered_model = now

    def __exit__(self, *_: object) -> None:
        now = time.monotonic()
        for member in self._members:
            if member.entered_model is not None:
                member.model_s += now - member.entered_model
                member.entered_model = None


class Usage:
    """What the requests of one call came to, those of a stream added up."""

    __slots__ = ("model_s", "rows", "waited_s")

    def __init__(self) -> None:
        self.rows: int | None = None  # None if that is not known.
        self.waited_s: float | None = None  # None if no request has got as far as to wait.
        self.model_s: float | None = None  # None if the model was not asked.

    def add(self, progress: Progress) -> None:
        """Adds a request that has ended, or that nobody waits for any more."""
        now = time.monotonic()
        began, entered = progress.began, progress.entered_model
        self.waited_s = (self.waited_s or 0.0) + (now if began is None else began) - progress.came
        in_model_s = progress.model_s + (now - entered if entered is not None else 0.0)
        if in_model_s:
            self.model_s = (self.model_s or 0.0) + in_model_s
        if progress.rows is not None:
            self.rows = (self.rows or 0) + progress.rows


def row_count(data: Any) -> int | None:
    """How many rows a model's input has, as far as its form says: a table, an array, named arrays or records."""
    if isinstance(data, dict):
        data = next(iter(data.values()), None)
    elif isinstance(data, list):
        return len(data)
    shape = getattr(data, "shape", ())
    return int(shape[0]) if shape else None
