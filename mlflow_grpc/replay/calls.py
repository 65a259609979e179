"""Recorded calls that are made again, in their order.

Rule of this module: an answer, or an error of the model, is a result to compare. An error of the server or of the
connection ends the replay, because it says nothing about the model.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from mlflow_grpc_client import Client, PredictError

from mlflow_grpc.errors import StartError
from mlflow_grpc.recording.columns import CallRow
from mlflow_grpc.replay.comparison import SAME, Difference, difference

OF_THE_MODEL = frozenset(
    ("INVALID_ARGUMENT", "INTERNAL", "OUT_OF_RANGE", "FAILED_PRECONDITION", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
)
"""Statuses of failed calls that are results."""


@dataclass(frozen=True, slots=True)
class ReplayedCall:
    """A recorded call, and what became of it now."""

    recorded: CallRow
    status: str
    """Name of the gRPC status of now."""
    output: str | None
    """The answer of now; None if the call failed."""
    error: str | None
    """The message of the error of now; None if the call was answered."""
    duration_ms: float
    """Time of the call as the client saw it, in milliseconds."""
    difference: Difference

    @property
    def is_same(self) -> bool:
        """True if status and answer are those of the recorded call."""
        return self.status == self.recorded.status and self.difference is SAME


@dataclass(frozen=True, slots=True)
class Replay:
    """How calls are made again."""

    client: Client
    model_of: Callable[[CallRow], str | None]
    """Returns the name of the model to call; None for the only one."""
    tolerance: float
    in_flight: int
    """Number of calls at a time."""

    def run(self, calls: Iterable[CallRow]) -> Iterator[ReplayedCall]:
        """Yields the calls in their order, each once it has been made.

        Raises:
            StartError: The server does not take the calls.

        """
        waiting: deque[Future[ReplayedCall]] = deque()
        pool = ThreadPoolExecutor(self.in_flight, thread_name_prefix="replay")
        try:
            for call in calls:
                waiting.append(pool.submit(self._make, call))
                if len(waiting) > 2 * self.in_flight:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _make(self, call: CallRow) -> ReplayedCall:
        started_at = time.monotonic()
        output = error = None
        status = "OK"
        try:
            model = self.model_of(call)
            output = self.client.predict_text(call.input or "", content_type=call.content_type, model=model)
        except PredictError as failed:
            status, error = failed.code.name, failed.message
            if status not in OF_THE_MODEL:
                raise StartError(f"the calls cannot be made: {failed}") from None
        duration_ms = 1000 * (time.monotonic() - started_at)
        compared = difference(call.output, output, self.tolerance)
        return ReplayedCall(call, status, output, error, duration_ms, compared)
