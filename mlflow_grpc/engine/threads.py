"""Threads that run the model, off the event loop, each call until its deadline.

Rule of this module: it knows nothing of models and gRPC; it runs functions.

Why not `concurrent.futures`: a model call cannot be interrupted, so a call that hangs keeps its thread.
In a pool of fixed size as many hung calls as threads stop everything, and the interpreter waits for
them at exit. Here a call that nobody waits for any more gives up its place: another thread takes over,
up to a limit, and the threads are daemons.
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

from mlflow_grpc.engine.concurrency import Concurrency, Look
from mlflow_grpc.errors import NotReady
from mlflow_grpc.own_loggers import get_logger

logger = get_logger(__name__)

T = TypeVar("T")

REPLACEMENTS_PER_THREAD = 4
"""How many threads may take over from each of the pool's, before hung calls do stop it.

Bounded, because a model that is merely slow would otherwise be run ever more often at a time.
"""


HOPELESS_FACTOR = 2.0
"""A call that has less time left than this many times what calls take, when others wait, is not begun."""


LEARN = 0.1
"""The weight of the last call in how long calls usually take."""

MOST_ABANDONED = 256
"""How many jobs without a caller may wait in line before they are taken out."""

FORGET_ON_REFUSAL = 0.98
"""What becomes of that figure with each call that is not begun for its sake: a wrong one does not last."""


class _State(Enum):
    WAITING = auto()
    RUNNING = auto()
    LEFT = auto()  # The caller has gone; if it is running, its outcome is for nobody.


class _Job:
    __slots__ = ("deadline", "function", "future", "left_at", "loop", "state")

    def __init__(self, function: Callable[[], Any], deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        self.function: Callable[[], Any] | None = function
        self.left_at = float("inf")  # When its caller went while it ran.
        self.deadline = deadline
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.state = _State.WAITING

    def settle(self, result: Any, error: BaseException | None) -> None:
        """Hands the outcome to the caller; runs in the event loop."""
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class ModelThreads:
    """A pool of threads; `run` is called from the event loop, everything else is internal."""

    def __init__(self, size: int) -> None:
        """Args:
        size: How many functions may run at once.
        """
        self._concurrency = Concurrency(size)
        self.context = contextvars.Context()
        """Functions run in copies of it, as with `asyncio.to_thread` they run in copies of the caller's."""
        self._limit = size * (1 + REPLACEMENTS_PER_THREAD)
        self._lock = threading.Lock()  # Of the counts below; held for a few instructions, never while waiting.
        # Written in C: a thread that waits for it is woken once, where a Condition wakes it to wait for a lock.
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = 0
        self._busy = 0
        self._pending = 0  # Jobs that no thread has taken yet.
        self._abandoned = 0  # Pending jobs whose callers have gone.
        self._left = 0  # Threads that run a job whose caller has gone.
        self._usual_s = 0.0  # How long jobs took lately.
        self._usual_cpu_s = 0.0  # And for how long of that they computed.
        self._closed = False

    async def run(self, function: Callable[[], T], *, deadline: float) -> T:
        """Runs `function` in a thread and gives its result, or raises what it raises.

        A function whose turn comes after its deadline, or after its caller was cancelled, is not run; nor is one
        that has less than `hopeless_s` left while others wait.

        Args:
            function: What to run.
            deadline: On the clock of `time.monotonic`, in seconds.

        Raises:
            TimeoutError: The deadline passed first; the function may still be running.
            NotReady: The pool is closed, or there is no thread and none can be started.

        """
        loop = asyncio.get_running_loop()
        job = _Job(function, deadline, loop)
        self._submit(job)
        timer = loop.call_later(max(0.0, deadline - time.monotonic()), job.settle, None, TimeoutError())
        try:
            result: T = await job.future
            return result
        finally:
            timer.cancel()
            self._leave(job)
            # An error's traceback leads here, and from the job to the error: a circle that would keep the call's data
            # until the collector comes by.
            del job, function

    @property
    def stuck(self) -> bool:
        """Whether calls without a caller hold every thread that there may be, so that none can run."""
        with self._lock:
            return self._left >= self._limit

    @property
    def concurrency(self) -> int:
        """How many functions run at a time."""
        return self._concurrency.limit

    def adapt(self, look: Look, *, calls: int) -> None:
        """Runs fewer functions at a time, or more again; see `mlflow_grpc.engine.concurrency`.

        Args:
            look: What was seen of the event loop.
            calls: How many calls are in, waiting or running.

        """
        with self._lock:
            before = self._concurrency.limit
            share = self._busy * self._usual_cpu_s / self._usual_s if self._usual_s else 0.0
            self._concurrency.update(look, calls=calls, model_share=share)
            for _ in range(min(self._pending, self._concurrency.limit - before)):
                self._start_thread_if_allowed()

    @property
    def usual_s(self) -> float:
        """How long calls took lately, in seconds."""
        return self._usual_s

    @property
    def hopeless_s(self) -> float:
        """With less time left than this, in seconds, a call is unlikely to be answered before its deadline.

        Where calls wait in the order in which they came and time out as they do, those at the head have hardly
        any time left. To begin them would keep the threads busy with answers that nobody gets.
        """
        return HOPELESS_FACTOR * self._usual_s

    def close(self) -> None:
        """Ends idle threads and lets the others end with what they run; waits for none."""
        with self._lock:
            self._closed = True
            threads = self._threads
        with contextlib.suppress(Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    _tell(job, None, NotReady("The server has shut down."))
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
            self._jobs.put(job)

    def _leave(self, job: _Job) -> None:
        with self._lock:
            if job.state is _State.RUNNING:
                job.left_at = time.monotonic()
                self._left += 1
                if self._pending:
                    self._start_thread_if_allowed()
            elif job.state is _State.WAITING:
                # It is passed over when its turn comes; until then it must not keep the call's data.
                job.function = None
                self._abandoned += 1
            job.state = _State.LEFT
            if self._abandoned > max(MOST_ABANDONED, self._pending // 2):
                self._sweep()

    def _sweep(self) -> None:
        """Takes out the jobs whose callers have gone, which no thread may ever come to; with the lock held."""
        kept = []
        with contextlib.suppress(Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None and job.state is _State.LEFT:
                    self._pending -= 1
                else:
                    kept.append(job)
        for job in kept:
            self._jobs.put(job)
        self._abandoned = 0

    def _start_thread_if_allowed(self) -> None:
        if self._threads - self._left < self._concurrency.limit and self._threads < self._limit:
            thread = threading.Thread(target=self._work, name=f"model-{self._threads + 1}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # The machine or the container has as many as it may have.
                logger.error("no thread can be started for the model: %s", error)  # noqa: TRY400
            else:
                self._threads += 1

    def _next(self) -> _Job | None:
        """The next job to run; None if the thread is to end."""
        while True:
            with self._lock:
                if self._closed or self._threads - self._left > self._concurrency.limit:
                    self._threads -= 1
                    return None
            job = self._jobs.get()
            if job is None:
                continue
            with self._lock:
                self._pending -= 1
                if job.state is not _State.WAITING:
                    self._abandoned -= 1
                    continue
                if time.monotonic() + (self.hopeless_s if self._pending else 0.0) < job.deadline:
                    job.state = _State.RUNNING
                    self._busy += 1
                    return job
                self._usual_s *= FORGET_ON_REFUSAL
                self._usual_cpu_s *= FORGET_ON_REFUSAL
            _tell(job, None, TimeoutError())

    def _work(self) -> None:
        while (job := self._next()) is not None:
            result, error = None, None
            started, cpu_started = time.monotonic(), time.thread_time()
            try:
                result = self.context.copy().run(job.function) if job.function is not None else None
            except BaseException as raised:  # noqa: BLE001 - it is handed to the caller
                error = _carriable(raised)
            # Once nobody waits for it a call tells nothing of how long those take that are waited for.
            took_s = min(time.monotonic(), job.left_at) - started
            cpu_s = min(time.thread_time() - cpu_started, took_s)
            with self._lock:
                self._usual_s += LEARN * (took_s - self._usual_s)
                self._usual_cpu_s += LEARN * (cpu_s - self._usual_cpu_s)
                self._busy -= 1
                if job.state is _State.LEFT:
                    self._left -= 1
                job.state = _State.LEFT
            _tell(job, result, error)
            # A thread that waits for work must not keep the last call's data alive.
            del job, result, error


def _carriable(error: BaseException) -> Exception:
    """What a future can carry: asyncio lets SystemExit and its like end the event loop, takes CancelledError
    for a cancellation of the caller, and refuses StopIteration.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    carried = RuntimeError(f"{type(error).__name__} was raised")
    carried.__cause__ = error
    return carried


def _tell(job: _Job, result: Any, error: BaseException | None) -> None:
    # A closed loop means that the server has gone, and the caller with it.
    with contextlib.suppress(RuntimeError):
        job.loop.call_soon_threadsafe(job.settle, result, error)
