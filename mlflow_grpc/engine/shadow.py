"""A challenger that runs behind the calls of its champion: the queue of its work, and the comparison of predictions.

Rule of this module: nothing here delays or fails a call. A call is answered before the challenger gets its request. The
challenger runs for one request at a time, only while no request waits for the champion, and takes a limited share of a
processor core. What does not fit is dropped and counted.
"""

import asyncio
import copy
import time
from collections import deque
from collections.abc import Sized
from dataclasses import dataclass
from functools import partial

from mlflow_grpc.challenger_config import MAX_CPU_SHARE, Challenger
from mlflow_grpc.engine.answer import answer
from mlflow_grpc.engine.captured import CapturedRequest
from mlflow_grpc.engine.catalog import Entry
from mlflow_grpc.engine.engine import AnswerRequest
from mlflow_grpc.engine.progress import RequestProgress
from mlflow_grpc.engine.report import report
from mlflow_grpc.engine.requests import AnswerT, NoObserver, Request
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.engine.time_limit import TimeLimit
from mlflow_grpc.errors import NotReady, ServingError, TimeLimitExceeded
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.telemetry.challengers import Outcome, ShadowMetrics

logger = get_logger(__name__)

MAX_WAITING, MAX_WAITING_BYTES = 64, 16 * 2**20
"""Maximum number of requests that wait for the challenger, and of the bytes of their payloads and predictions."""

VALUE_BYTES = 8
"""Size of a predicted number in bytes."""

RETRY_S = 0.005
"""Time after which the challenger tries again if a request waits for the champion, in seconds."""

LOG_INTERVAL_S = 60.0
"""Shortest time between two log lines about errors of a challenger, in seconds; a metric counts all of them."""


@dataclass(frozen=True)
class _Answered:
    """A request that the champion has answered."""

    request: Request[object]
    size: int
    """Size of the payload and approximate size of the predictions, in bytes."""
    predictions: object


@dataclass(frozen=True)
class _Compared:
    """What a run of the challenger showed."""

    outcome: Outcome
    cpu_s: float = 0.0
    """Processor time of the run in seconds; 0 if it did not end."""
    difference: float | None = None
    error: ServingError | None = None


class ShadowCalls:
    """Layer of a champion's engine; used from the event loop only."""

    def __init__(self, champion: Entry, rule: Challenger, timeout_s: float) -> None:
        """Starts without work.

        Args:
            champion: The model whose calls the challenger runs behind.
            rule: The challenger in the configuration.
            timeout_s: Time limit of a run of the challenger in seconds.

        """
        self._champion = champion
        self._pause_factor = 1 / (rule.max_cpu or MAX_CPU_SHARE) - 1
        self._timeout_s = timeout_s
        self._waiting: deque[_Answered] = deque()
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._logs_from = 0.0
        self._metrics: ShadowMetrics | None = None  # All versions of the challenger have the same.

    def around(self, answer_call: AnswerRequest) -> AnswerRequest:
        """Returns what answers requests as before, and then hands them to the challenger.

        Args:
            answer_call: The engine's way.

        """

        async def answer_and_compare(request: Request[AnswerT], size: int, limit: TimeLimit) -> AnswerT:
            if not request.observer.is_shadowed:
                return await answer_call(request, size, limit)
            captured = CapturedRequest(request)
            answered = await answer_call(captured, size, limit)
            try:
                self._add(request, size, captured.predictions)
            except Exception:
                self._count(_Compared(Outcome.DROPPED))
                logger.exception("a call cannot be compared with the challenger of %s", self._champion.label)
            return answered

        return answer_and_compare

    def _add(self, request: Request[object], size: int, predictions: object) -> None:
        size += VALUE_BYTES * _count_of(predictions)
        if (challenger := self._champion.challenger) is not None and challenger.engine.metrics is not None:
            self._metrics = challenger.engine.metrics.shadow
            self._metrics.show()
        if len(self._waiting) >= MAX_WAITING or self._bytes + size > MAX_WAITING_BYTES:
            self._count(_Compared(Outcome.DROPPED))
            return
        again = copy.copy(request)
        again.observer, again.progress = NoObserver(), RequestProgress()
        self._waiting.append(_Answered(again, size, predictions))
        self._bytes += size
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        """Runs the challenger for the requests that wait, until there are none."""
        try:
            while self._waiting:
                while self._champion.engine.waiting_requests:  # noqa: ASYNC110 - calls do not report that none waits
                    await asyncio.sleep(RETRY_S)
                answered = self._waiting.popleft()
                self._bytes -= answered.size
                challenger = self._champion.challenger
                compared = await self._compare(answered, challenger)
                self._count(compared)
                del answered, challenger
                await asyncio.sleep(compared.cpu_s * self._pause_factor)
        finally:
            self._task = None

    async def _compare(self, answered: _Answered, challenger: Entry | None) -> _Compared:
        """Runs the challenger for one request; raises nothing."""
        if challenger is None or challenger.loaded is None or not challenger.takes_calls:
            return _Compared(Outcome.DROPPED)
        threads = challenger.engine.threads
        if threads.abandoned_running:  # It may hold the interpreter again and again, so there is never a second one.
            return _Compared(Outcome.DROPPED)
        answered.request.progress = RequestProgress()  # Time spent waiting here is not model time.
        try:
            compared = await threads.run(
                partial(_run, answered, challenger.loaded), deadline=time.monotonic() + self._timeout_s
            )
        except TimeoutError:
            message = f"It took longer than {self._timeout_s:g} s. Until that run ends, all calls are dropped."
            compared = _Compared(Outcome.FAILED, error=TimeLimitExceeded(message))
        except NotReady:  # It is being replaced.
            return _Compared(Outcome.DROPPED)
        except Exception as raised:  # noqa: BLE001 - such as SystemExit of the model, wrapped by the pool
            failed = ServingError("It raised an exception that is not an error, such as SystemExit.")
            failed.__cause__ = raised
            compared = _Compared(Outcome.FAILED, error=failed)
        report(answered.request, compared.error, challenger.engine.metrics, None)
        if (error := compared.error) is not None and time.monotonic() >= self._logs_from:
            self._logs_from = time.monotonic() + LOG_INTERVAL_S
            logger.warning("%s failed behind a call: %s", challenger.label, error.logged, exc_info=error.__cause__)
        return compared

    def _count(self, compared: _Compared) -> None:
        if self._metrics is not None:
            self._metrics.count(compared.outcome, compared.difference)


def _count_of(predictions: object) -> int:
    """Returns the number of values of an array or a table, or the length of a list or a text."""
    count = getattr(predictions, "size", None)  # A function in tensors of PyTorch.
    if isinstance(count, int):
        return count
    return len(predictions) if isinstance(predictions, Sized) else 1


def _run(answered: _Answered, model: ServableModel) -> _Compared:
    """Runs the challenger in a thread of its own engine, and compares."""
    from mlflow_grpc.engine.agreement import Agreement, compare  # Late, because they import numpy.

    started_s = time.thread_time()
    captured = CapturedRequest(answered.request)
    try:
        answer(captured, model)
    except ServingError as error:
        return _Compared(Outcome.FAILED, time.thread_time() - started_s, error=error)
    try:
        agreement = compare(answered.predictions, captured.predictions)
    except Exception:  # noqa: BLE001 - values of a model's own classes, which cannot be compared
        agreement = Agreement(agrees=False)
    outcome = Outcome.AGREED if agreement.agrees else Outcome.DIFFERED
    return _Compared(outcome, time.thread_time() - started_s, agreement.difference)
