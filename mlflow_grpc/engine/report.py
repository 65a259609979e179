"""The report of a request that has ended, to its call and to the metrics.

Rule of this module: it reports what has happened, and decides nothing. A request that was refused is not reported: the
admission counts it by its reason.
"""

import asyncio

from mlflow_grpc.engine.requests import Request
from mlflow_grpc.engine.time_limit import is_over
from mlflow_grpc.errors import ServingError, Status
from mlflow_grpc.telemetry.models import ModelMetrics


def report(
    request: Request[object], error: BaseException | None, metrics: ModelMetrics | None, deadline: float | None
) -> None:
    """Reports a request that has ended.

    Args:
        request: The request.
        error: The error that ended it; None if it was answered.
        metrics: Where requests are counted; None if nowhere.
        deadline: Deadline of the caller, on the clock of `time.monotonic`, in seconds; None if it has none.

    """
    progress = request.progress
    request.observer.request_ended(progress)
    if metrics is None:
        return
    if error is None:
        metrics.request_ended("OK", progress)
    else:
        metrics.request_ended(_code(error, deadline), progress.now())
    if progress.model_s and not progress.is_batched:
        metrics.batch_ended(1, progress.rows or 0)


def _code(error: BaseException, deadline: float | None) -> str:
    """Returns the name of the gRPC status of a request that failed."""
    if isinstance(error, ServingError):
        return error.status
    if not isinstance(error, asyncio.CancelledError | GeneratorExit):
        return Status.INTERNAL
    return Status.DEADLINE_EXCEEDED if is_over(deadline) else Status.CANCELLED
