"""CPU time to record the metrics of a gRPC call, measured without a server, because it is below the noise of a load."""

import statistics
import time
from collections.abc import Callable

from mlflow_grpc.engine.progress import RequestProgress
from mlflow_grpc.telemetry.metrics import ALONE

CALLS, ROUNDS = 20_000, 7
BATCH = 16
"""Calls in a batch; with 32 calls in flight, about half of them are in one."""


def cost_us() -> float:
    """Returns the time per call in microseconds, as the median of some rounds."""
    recorded, empty = _recorder(), _nothing()
    return statistics.median((_took_s(recorded) - _took_s(empty)) / CALLS * 1e6 for _ in range(ROUNDS))


def _recorder() -> Callable[[], None]:
    """Returns a function that records what the server records of a batch of calls."""
    metrics = ALONE.metrics(1)
    method, model = metrics.grpc_method("/model_grpc_service.MLflow/predict"), metrics.add_model(rpcs=0)
    progress = RequestProgress()
    progress.decode_s, progress.model_s, progress.encode_s = 0.00002, 0.0001, 0.00001
    progress.start()

    def record() -> None:
        for _ in range(BATCH):
            method.started += 1
            method.received += 1
            model.request_ended("OK", progress)
            method.sent += 1
            method.ended("OK", time.monotonic() - progress.created_at)
        model.batch_ended(BATCH, BATCH)

    return record


def _nothing() -> Callable[[], None]:
    def record() -> None:
        for _ in range(BATCH):
            pass

    return record


def _took_s(record: Callable[[], None]) -> float:
    started_s = time.process_time()
    for _ in range(CALLS // BATCH):
        record()
    return time.process_time() - started_s
