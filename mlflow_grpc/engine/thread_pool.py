"""Threads that run a model, off the event loop, each function until its deadline.

Rule of this module: it runs functions, and knows nothing of models and gRPC.

Why not `concurrent.futures`: a model call cannot be interrupted, so a call that hangs keeps its thread. A pool of fixed
size stops once every thread hangs, and the interpreter waits for such threads at exit. In this pool another thread
takes over from a call whose caller has left, up to a limit, and all threads are daemons.

It has more than 300 lines, because the queue, the threads and their replacements share one lock.
"""

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from mlflow_grpc.engine.concurrency import Concurrency, LoopSample
from mlflow_grpc.errors import NotReady
from mlflow_grpc.own_loggers import get_logger

logger = get_logger(__name__)

ResultT = TypeVar("ResultT")

REPLACEMENTS_PER_THREAD = 4
"""Maximum number of threads that take over from each of the pool's threads before hung calls stop the pool.

It is bounded because a model that is merely slow would otherwise run more and more calls at a time.
"""

MIN_TIME_LEFT_FACTOR = 2.0
"""A function starts only with this many mean durations left before its deadline, if others wait."""

LEARNING_RATE = 0.1
"""Weight of the latest function in the mean duration."""

MAX_ABANDONED = 256
"""Maximum number of abandoned jobs in the queue before they are removed."""

DECAY_ON_SKIP = 0.98
"""Factor on the mean duration for each function that is skipped because of it, so that a wrong mean does not last."""


class _State(Enum):
    WAITING = auto()
    RUNNING = auto()
    ABANDONED = auto()  # The caller has left. A running function goes on, and its result is dropped.
    ENDED = auto()  # The function has ended, or was skipped and will never start.


class _Job:
    __slots__ = ("abandoned_at", "deadline", "function", "future", "loop", "requests", "state")

    def __init__(
        self, function: Callable[[], object], deadline: float, loop: asyncio.AbstractEventLoop, requests: int
    ) -> None:
        self.function: Callable[[], object] | None = function
        self.requests = requests  # Requests that wait for it; 0 once it has started or will never start.
        self.abandoned_at = float("inf")  # When its caller left while it ran.
        self.deadline = deadline
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.state = _State.WAITING

    def settle(self, result: object, error: BaseException | None) -> None:
        """Hands the outcome to the caller; runs in the event loop."""
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class ModelThreadPool:
    """Pool of threads for one model. `run` is called from the event loop."""

    def __init__(self, size: int) -> None:
        """Starts without threads; they are started when they are needed.

        Args:
            size: Maximum number of functions that run at once.

        """
        self._concurrency = Concurrency(size)
        self.context = contextvars.Context()
        """Functions run in copies of this context, as `asyncio.to_thread` uses copies of its caller's."""
        self._limit = size * (1 + REPLACEMENTS_PER_THREAD)
        self._lock = threading.Lock()  # Guards the counts below; held for a few instructions, never while waiting.
        # SimpleQueue is written in C and wakes a waiting thread once. A Condition wakes it to wait for a lock.
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = 0
        self._busy = 0
        self._busy_s, self._busy_changed_at = 0.0, 0.0  # Time of all threads until the number of busy ones changed.
        self._pending = 0  # Jobs in the queue.
        self._abandoned_pending = 0  # Jobs in the queue whose callers have left.
        self._waiting_requests = 0
        self._abandoned_running = 0  # Threads that run a job whose caller has left.
        self._mean_duration_s = 0.0
        self._mean_cpu_s = 0.0  # Processor time within the mean duration.
        self._closed = False

    async def run(self, function: Callable[[], ResultT], *, deadline: float, requests: int = 1) -> ResultT:
        """Runs a function in a thread and returns its result, or raises its exception.

        A function is skipped if its turn comes after its deadline or after its caller was cancelled. While others wait
        it is also skipped if it has less than `min_time_left_s` left.

        Args:
            function: What to run.
            deadline: On the clock of `time.monotonic`, in seconds.
            requests: Number of requests that the function answers.

        Raises:
            TimeoutError: The deadline passed first; the function may still be running.
            NotReady: The pool is closed, or there is no thread and none can be started.

        """
        loop = asyncio.get_running_loop()
        job = _Job(function, deadline, loop, requests)
        self._submit(job)
        timer = loop.call_later(max(0.0, deadline - time.monotonic()), job.settle, None, TimeoutError())
        try:
            result: ResultT = await job.future
            return result
        finally:
            timer.cancel()
            self._abandon(job)
            # An error's traceback leads here, and from the job to the error: a cycle that would keep the call's data
            # until the garbage collector runs.
            del job, function

    @property
    def is_exhausted(self) -> bool:
        """True if abandoned calls hold every thread that the pool may have, so that nothing can run."""
        with self._lock:
            return self._abandoned_running >= self._limit

    @property
    def waiting_requests(self) -> int:
        """Number of requests whose functions have not started."""
        return self._waiting_requests

    @property
    def abandoned_running(self) -> int:
        """Number of functions that run although their callers have left."""
        return self._abandoned_running

    @property
    def busy(self) -> int:
        """Number of functions that run."""
        return self._busy

    @property
    def busy_s(self) -> float:
        """Time for which functions have run so far, in seconds, summed over the threads."""
        with self._lock:
            self._count_busy(time.monotonic(), 0)
            return self._busy_s

    @property
    def concurrency(self) -> int:
        """Maximum number of functions that run at once."""
        return self._concurrency.limit

    def adapt(self, sample: LoopSample, *, requests: int) -> None:
        """Adapts the concurrency to the load; see `mlflow_grpc.engine.concurrency`.

        Args:
            sample: The latest measurement of the event loop.
            requests: Number of requests in the server, waiting or running.

        """
        with self._lock:
            before = self._concurrency.limit
            share = self._busy * self._mean_cpu_s / self._mean_duration_s if self._mean_duration_s else 0.0
            self._concurrency.update(sample, requests=requests, model_share=share)
            for _ in range(min(self._pending, self._concurrency.limit - before)):
                self._start_thread_if_allowed()

    @property
    def mean_duration_s(self) -> float:
        """Moving mean of the functions' durations, in seconds."""
        return self._mean_duration_s

    @property
    def min_time_left_s(self) -> float:
        """Time before its deadline that a function needs to start while others wait, in seconds.

        Under overload the functions whose turn comes would otherwise be those that have waited longest and have
        hardly any time left, and the threads would be busy with answers that no caller gets.
        """
        return MIN_TIME_LEFT_FACTOR * self._mean_duration_s

    def close(self) -> None:
        """Ends idle threads and returns at once; busy threads end after their function."""
        with self._lock:
            self._closed, self.context = True, contextvars.Context()
            threads = self._threads
        with contextlib.suppress(Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    with self._lock:
                        self._pending -= 1
                        if job.state is _State.ABANDONED:
                            self._abandoned_pending -= 1
                            continue
                        self._no_longer_waits(job)
                        job.state = _State.ENDED
                    _notify(job, None, NotReady("The server has shut down."))
        for _ in range(threads):
            self._jobs.put(None)

    def _submit(self, job: _Job) -> None:
        with self._lock:
            if self._closed:
                raise NotReady("The server has shut down.")
            if self._pending >= self._threads - self._busy:
                self._start_thread_if_allowed()
            if not self._threads:
                raise NotReady("The server can start no thread for the call. Try again: another server may take it.")
            self._pending += 1
            self._waiting_requests += job.requests
            self._jobs.put(job)

    def _abandon(self, job: _Job) -> None:
        with self._lock:
            if job.state is _State.RUNNING:
                job.abandoned_at = time.monotonic()
                self._abandoned_running += 1
                if self._pending:
                    self._start_thread_if_allowed()
            elif job.state is _State.WAITING:
                # A thread skips it later; until then it must not keep the call's data.
                job.function = None
                self._no_longer_waits(job)
                self._abandoned_pending += 1
            if job.state is not _State.ENDED:
                job.state = _State.ABANDONED
            if self._abandoned_pending > max(MAX_ABANDONED, self._pending // 2):
                self._remove_abandoned()

    def _no_longer_waits(self, job: _Job) -> None:
        """Counts down once for a job; called with the lock held."""
        self._waiting_requests -= job.requests
        job.requests = 0

    def _remove_abandoned(self) -> None:
        """Removes abandoned jobs from the queue, which no thread may ever come to; called with the lock held."""
        kept = []
        with contextlib.suppress(Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None and job.state is _State.ABANDONED:
                    self._pending -= 1
                else:
                    kept.append(job)
        for job in kept:
            self._jobs.put(job)
        self._abandoned_pending = 0

    def _start_thread_if_allowed(self) -> None:
        if self._threads - self._abandoned_running < self._concurrency.limit and self._threads < self._limit:
            thread = threading.Thread(target=self._work, name=f"model-{self._threads + 1}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # The machine's or the container's limit of threads.
                logger.error("no thread can be started for the model: %s", error)  # noqa: TRY400
            else:
                self._threads += 1

    def _next(self) -> _Job | None:
        """Returns the next job to run; None if the thread has to end."""
        while True:
            with self._lock:
                if self._closed or self._threads - self._abandoned_running > self._concurrency.limit:
                    self._threads -= 1
                    return None
            job = self._jobs.get()
            if job is None:
                continue
            with self._lock:
                self._pending -= 1
                if job.state is not _State.WAITING:
                    self._abandoned_pending -= 1
                    continue
                self._no_longer_waits(job)
                now = time.monotonic()
                if now + (self.min_time_left_s if self._pending else 0.0) < job.deadline:
                    job.state = _State.RUNNING
                    self._count_busy(now, 1)
                    return job
                job.state = _State.ENDED
                self._mean_duration_s *= DECAY_ON_SKIP
                self._mean_cpu_s *= DECAY_ON_SKIP
            _notify(job, None, TimeoutError())

    def _count_busy(self, now: float, change: int) -> None:
        """Adds the time since the last change of the number of busy threads; called with the lock held."""
        # Another thread may have counted later than `now`, because the lock is taken after the clock is read.
        self._busy_s += self._busy * max(0.0, now - self._busy_changed_at)
        self._busy_changed_at = max(now, self._busy_changed_at)
        self._busy += change

    def _work(self) -> None:
        while (job := self._next()) is not None:
            result, error = None, None
            started_at, cpu_started_s = time.monotonic(), time.thread_time()
            try:
                result = self.context.copy().run(job.function) if job.function is not None else None
            except BaseException as raised:  # noqa: BLE001 - handed to the caller
                error = _as_exception(raised)
            # Time after the caller left must not count toward the mean duration.
            ended_at = time.monotonic()
            duration_s = min(ended_at, job.abandoned_at) - started_at
            cpu_s = min(time.thread_time() - cpu_started_s, duration_s)
            with self._lock:
                self._mean_duration_s += LEARNING_RATE * (duration_s - self._mean_duration_s)
                self._mean_cpu_s += LEARNING_RATE * (cpu_s - self._mean_cpu_s)
                self._count_busy(ended_at, -1)
                if job.state is _State.ABANDONED:
                    self._abandoned_running -= 1
                job.state = _State.ENDED
            _notify(job, result, error)
            # A thread that waits for work must not keep the last call's data alive.
            del job, result, error


def _as_exception(error: BaseException) -> Exception:
    """Returns an exception that a future can carry.

    asyncio lets SystemExit and KeyboardInterrupt end the event loop, takes CancelledError for a cancellation of the
    caller, and refuses StopIteration. These are wrapped in a RuntimeError.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"{type(error).__name__} was raised")
    wrapped.__cause__ = error
    return wrapped


def _notify(job: _Job, result: object, error: BaseException | None) -> None:
    # The event loop is closed only after the server and its callers have ended.
    with contextlib.suppress(RuntimeError):
        job.loop.call_soon_threadsafe(job.settle, result, error)
