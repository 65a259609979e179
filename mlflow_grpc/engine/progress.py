"""Times and row counts of requests, for log, metrics and callers: waiting, decoding, predicting, encoding.

Rule of this module: it keeps clocks and counts, and makes no decisions. A RequestProgress is written by the thread that
works on the request at the moment, a model thread or the event loop. A CallUsage is written by the event loop alone.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

from mlflow_grpc.telemetry.traces import CallTrace, ModelRun


class RequestProgress:
    """Timestamps and row count of one request. Times are on the clock of `time.monotonic`, in seconds."""

    __slots__ = (
        "created_at",
        "decode_s",
        "encode_s",
        "is_batched",
        "model_s",
        "predicting_since",
        "rows",
        "started_at",
        "trace",
    )

    def __init__(self) -> None:
        self.created_at = time.monotonic()
        self.started_at: float | None = None
        """When decoding began; None while the request waits."""
        self.predicting_since: float | None = None
        """When the model call that is running began; None outside of the model."""
        self.decode_s = self.model_s = self.encode_s = 0.0
        self.is_batched = False
        """True once it was predicted in a batch, by itself or with others."""
        self.rows: int | None = None
        """Number of rows in the payload; None while unknown."""
        self.trace: CallTrace | None = None
        """Trace of the call that it belongs to; None if the call is not traced."""

    def start(self) -> None:
        """Marks the end of waiting; a second call changes nothing."""
        if self.started_at is None:
            self.started_at = time.monotonic()

    def decoded(self, started_at: float) -> None:
        """Adds the time since `started_at`, in which the payload was decoded."""
        now = time.monotonic()
        self.decode_s += now - started_at
        if self.trace is not None:
            self.trace.add("decoding", started_at, now)

    def encoded(self, started_at: float) -> None:
        """Adds the time since `started_at`, in which an answer was encoded."""
        now = time.monotonic()
        self.encode_s += now - started_at
        if self.trace is not None:
            self.trace.add("encoding", started_at, now)

    def now(self) -> "RequestTimes":
        """Returns the times until now of a request that may still run, although its caller has left."""
        return RequestTimes(self.waited_s, self.decode_s, self.predict_s, self.encode_s)

    @property
    def waited_s(self) -> float:
        """Time before decoding, in seconds; the time until now if the request still waits."""
        return (time.monotonic() if self.started_at is None else self.started_at) - self.created_at

    @property
    def predict_s(self) -> float:
        """Time in the model, in seconds; with the time until now of a call that is running."""
        since = self.predicting_since
        return self.model_s if since is None else self.model_s + time.monotonic() - since


class RequestTimes(NamedTuple):
    """Times of a request at one moment, in seconds."""

    waited_s: float
    decode_s: float
    predict_s: float
    encode_s: float


class PredictTimer:
    """Context manager around a model call; adds its duration to every request that the call answers, and traces it."""

    __slots__ = ("_requests", "_run")

    def __init__(self, requests: Sequence[RequestProgress]) -> None:
        """Times one model call.

        Args:
            requests: The requests that are predicted together; each is charged the full duration.

        """
        self._requests = requests
        self._run: ModelRun | None = None

    def __enter__(self) -> None:
        traces: list[CallTrace] = []
        now = time.monotonic()
        for progress in self._requests:
            progress.predicting_since = now
            if progress.trace is not None:
                traces.append(progress.trace)
        if traces:
            self._run = ModelRun(traces, len(self._requests), now)

    def __exit__(self, *_: object) -> None:
        now = time.monotonic()
        if self._run is not None:
            self._run.end(now)
        for progress in self._requests:
            if progress.predicting_since is not None:
                progress.model_s += now - progress.predicting_since
                progress.predicting_since = None


class CallUsage:
    """Totals of one call over its requests; a stream has many."""

    __slots__ = ("decode_s", "encode_s", "model_s", "rows", "waited_s")

    def __init__(self) -> None:
        self.decode_s = self.encode_s = 0.0
        """Seconds of decoding and of encoding."""
        self.rows: int | None = None
        """Rows of all payloads; None if unknown."""
        self.waited_s: float | None = None
        """Seconds before decoding; None if no request reached the queue."""
        self.model_s: float | None = None
        """Seconds in the model; None if the model never ran."""

    def add(self, progress: RequestProgress) -> None:
        """Adds a request that has ended, or that its caller abandoned."""
        self.waited_s = (self.waited_s or 0.0) + progress.waited_s
        self.decode_s += progress.decode_s
        self.encode_s += progress.encode_s
        if model_s := progress.predict_s:
            self.model_s = (self.model_s or 0.0) + model_s
        if progress.rows is not None:
            self.rows = (self.rows or 0) + progress.rows


def row_count(data: object) -> int | None:
    """Number of rows in a model's input: a table, an array, named arrays or records. None if its type does not say."""
    if isinstance(data, dict):
        data = next(iter(data.values()), None)
    elif isinstance(data, list):
        return len(data)
    shape = getattr(data, "shape", ())
    return int(shape[0]) if shape else None
