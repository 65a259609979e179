"""The queue of one model's requests: decides when a batch starts, and which requests are in it.

Rule of this module: it decides when. What a batch does is in `run_batch`; how many requests to wait for is in
`arrivals`. A caller that leaves takes only its own request along.

Requests that arrive while a batch runs make up the next one. Only when a batch takes long is another one started beside
it. A batch that costs less than handing it to a thread and back runs in the event loop ("inline").
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial

from mlflow_grpc.engine.answer import answer, answer_checked
from mlflow_grpc.engine.batching.arrivals import BATCH_IDLE_S, ArrivalForecast, LoadView
from mlflow_grpc.engine.batching.pending import PendingRequest, RunningBatch
from mlflow_grpc.engine.batching.run_batch import BatchResult, decode_batch, predict_group, run_batch, size_of
from mlflow_grpc.engine.requests import AnswerT, Request
from mlflow_grpc.engine.servable import FastPath, ServableModel
from mlflow_grpc.engine.thread_pool import ModelThreadPool
from mlflow_grpc.telemetry.models import ModelMetrics

INLINE_MAX_SIZE = 65_536
"""Maximum size of the payloads of an inline batch, in bytes or characters: under a millisecond of decoding."""

INLINE_LIMIT_S, INLINE_PAUSE_S = 0.03, 60.0
"""If an inline batch takes more than INLINE_LIMIT_S of processor time, batches run in threads for INLINE_PAUSE_S."""

MAX_DEPARTED = 256
"""Maximum number of queued requests whose callers have left."""

NEVER = float("inf")


class Batcher:
    """Collects requests to one model and runs them in batches; used from the event loop only."""

    def __init__(
        self,
        threads: ModelThreadPool,
        model: ServableModel,
        fast_path: FastPath,
        load: LoadView,
        metrics: ModelMetrics | None = None,
    ) -> None:
        """Starts with an empty queue.

        Args:
            threads: Where batches run.
            model: What predicts.
            fast_path: The model's fast path, which has a runner.
            load: Numbers of calls and requests in the server.
            metrics: Where batches are counted; None if nowhere.

        """
        self._threads = threads
        self._model = model
        self._metrics = metrics
        self._max_rows = fast_path.max_rows
        self._max_wait_s = fast_path.max_wait_s
        self._inline_allowed_from = 0.0 if fast_path.inline else NEVER
        self._queue: deque[PendingRequest] = deque()
        self._pending: set[PendingRequest] = set()  # Queued or running.
        self._forecast = ArrivalForecast(load, max_wait_s=fast_path.max_wait_s)
        self._tasks: set[asyncio.Task[None]] = set()
        self._check: asyncio.Handle | None = None
        self._check_at = NEVER
        self._expiry: asyncio.TimerHandle | None = None
        self._next_deadline = NEVER

    @property
    def queued_requests(self) -> int:
        """Number of requests that wait for their batch to start."""
        return min(len(self._queue), len(self._pending))  # The queue may have requests whose callers have left.

    def close(self) -> None:
        """Cancels the timers of an empty queue, which would keep the model until they fire."""
        for timer in (self._check, self._expiry):
            if timer is not None:
                timer.cancel()
        self._check = self._expiry = None

    async def predict(self, request: Request[AnswerT], *, deadline: float) -> AnswerT:
        """Answers one request, alone or with others.

        Args:
            request: What the caller sent.
            deadline: On the clock of `time.monotonic`, in seconds.

        Raises:
            TimeoutError: The deadline passed.
            Exception: The error of the request when it is answered by itself.

        """
        loop = asyncio.get_running_loop()
        pending = PendingRequest(request, deadline, loop.create_future())
        if deadline < self._next_deadline:
            self._expire_at(deadline)
        self._queue.append(pending)
        self._pending.add(pending)
        self._forecast.note_arrival(pending.queued_at)
        if self._check is None or self._forecast.is_complete(len(self._queue), self._max_rows):
            self._schedule_now(loop)
        try:
            result: AnswerT = await pending.future
            return result
        finally:
            self._pending.discard(pending)
            if pending.batch is not None:
                pending.batch.caller_left()
            elif not self._pending:
                self._queue.clear()
            elif len(self._queue) > max(MAX_DEPARTED, 2 * len(self._pending)):
                # Behind a batch that hangs, requests whose callers left must not be kept with their data.
                self._queue = deque(queued for queued in self._queue if queued in self._pending)
            del pending  # An error's traceback leads here, and from the request to the error.

    def _expire_at(self, deadline: float) -> None:
        """Sets the one timer for all deadlines: most requests are answered long before it would fire."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._next_deadline = deadline
        delay_s = max(0.0, deadline - time.monotonic())
        self._expiry = asyncio.get_running_loop().call_later(delay_s, self._expire)

    def _expire(self) -> None:
        self._expiry, self._next_deadline = None, NEVER
        now = time.monotonic()
        deadlines = []
        for pending in self._pending:
            if pending.deadline <= now:
                pending.fail(TimeoutError())
            else:
                deadlines.append(pending.deadline)
        if deadlines:
            self._expire_at(min(deadlines))

    def _schedule_now(self, loop: asyncio.AbstractEventLoop) -> None:
        """Runs the next check after this turn of the event loop, so that requests of the same turn go together."""
        if self._check is not None:
            self._check.cancel()
        self._check, self._check_at = loop.call_soon(self._start_batches), NEVER

    def _start_batches(self) -> None:
        """Starts the batches that are due, and schedules the next check."""
        if self._check is not None:
            self._check.cancel()
            self._check = None
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        if now - self._check_at > BATCH_IDLE_S:
            self._forecast.note_delay(now)
        self._check_at = NEVER
        while self._queue and len(self._tasks) < self._threads.concurrency:
            if (wait_s := self._wait_s(now)) > 0:
                self._check = loop.call_later(wait_s, self._start_batches)
                self._check_at = now + wait_s
                return
            requests = self._take(now)
            if now >= self._inline_allowed_from and (result := self._run_inline(requests)) is not None:
                self._deliver(result)
                if self._queue:
                    self._schedule_now(loop)
                return
            if requests:
                batch = RunningBatch(requests)
                batch.task = self._start(self._run(requests))

    def _wait_s(self, now: float) -> float:
        """Returns how long the next batch has to wait, in seconds."""
        queued_at = self._queue[0].queued_at
        if self._tasks and now < self._inline_allowed_from:
            return self._max_wait_s - (now - queued_at)
        if self._forecast.is_complete(len(self._queue), self._max_rows):
            return 0.0
        return self._forecast.wait_s(now, queued_at=queued_at, predict_s=self._threads.mean_duration_s)

    def _take(self, now: float) -> list[PendingRequest]:
        """Takes the requests of the next batch from the queue; none if all of their callers have left."""
        self._forecast.note_batch()
        # If more requests wait than fit into a batch, those that would hardly be answered in time make room.
        min_time_left_s = self._threads.min_time_left_s if len(self._queue) > self._max_rows else 0.0
        requests: list[PendingRequest] = []
        while self._queue and len(requests) < self._max_rows:
            pending = self._queue.popleft()
            if pending.deadline <= now + min_time_left_s:
                pending.fail(TimeoutError())
            if not pending.future.done():
                requests.append(pending)
        return requests

    def _run_inline(self, requests: list[PendingRequest]) -> BatchResult[PendingRequest] | None:
        """Runs a batch in the event loop; None if it has to run in a thread after all."""
        if sum(pending.request.size for pending in requests) > INLINE_MAX_SIZE:
            return None
        decoded = decode_batch(requests, self._model)
        if not decoded.rows:
            return BatchResult([], decoded.unbatched)
        size = size_of(decoded.rows)
        if size[1] > self._max_rows:
            return None
        started_s = time.thread_time()
        answers = self._threads.context.copy().run(predict_group, decoded.rows, self._model)
        if time.thread_time() - started_s > INLINE_LIMIT_S:
            self._inline_allowed_from = time.monotonic() + INLINE_PAUSE_S
        return None if answers is None else BatchResult(answers, decoded.unbatched, [size])

    async def _run(self, requests: list[PendingRequest]) -> None:
        if len(requests) == 1:
            await self._run_alone(requests[0], answer)
            return
        last_deadline = max(pending.deadline for pending in requests)
        try:
            result = await self._threads.run(
                partial(run_batch, requests, self._model, self._max_rows),
                deadline=last_deadline,
                requests=len(requests),
            )
        except Exception as error:  # noqa: BLE001 - no time left, or the pool is closed: every caller gets it
            for pending in requests:
                pending.fail(error)
            del pending, requests  # The error's traceback leads here, and from the requests to the error.
            return
        self._deliver(result)

    def _deliver(self, result: BatchResult[PendingRequest]) -> None:
        for pending, value in result.answers:
            pending.resolve(value)
        if self._metrics is not None:
            for requests, rows in result.groups:
                self._metrics.batch_ended(requests, rows)
        for pending in result.unbatched:
            if not pending.future.done():
                self._start(self._run_alone(pending, answer_checked))

    async def _run_alone(
        self, pending: PendingRequest, run: Callable[[Request[object], ServableModel], object]
    ) -> None:
        running = asyncio.ensure_future(
            self._threads.run(partial(run, pending.request, self._model), deadline=pending.deadline)
        )
        pending.future.add_done_callback(partial(_cancel, running))
        try:
            pending.resolve(await running)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - it is the caller's
            pending.fail(error)
        finally:
            del pending, running  # An error's traceback leads here, and from both to the error.

    def _start(self, coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._start_batches()


def _cancel(running: "asyncio.Future[object]", _: "asyncio.Future[object]") -> None:
    running.cancel()
