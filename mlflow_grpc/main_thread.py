"""Work for the main thread while the event loop runs in another one.

Rule of this module: it knows nothing of models and gRPC; it runs functions one at a time and passes on signals.

Python gives the main thread rights that no other thread has: `signal.signal` works there alone, and
`asyncio.get_event_loop` finds a loop there. `mlflow models serve` loads its model in the main thread, so models may
rely on both. Loading one model after the other is also what Python's import system asks for: two threads that unpickle
at the same time can deadlock on the locks of modules that import each other (`_DeadlockError`).
"""

import asyncio
import contextlib
import contextvars
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from mlflow_grpc import logs
from mlflow_grpc.errors import StartError
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.process import SHUTDOWN_LIMIT_S

logger = get_logger(__name__)

T = TypeVar("T")

INTERRUPT_SIGNAL = signal.SIGURG
"""Sent to the main thread to interrupt a function. The system ignores it where nobody handles it; Go's runtime
interrupts its own threads in the same way, for the same reason."""

LIMIT_SIGNAL = signal.SIGVTALRM
"""Comes when a function has used the CPU for as long as it may run."""

STANDSTILL_LIMIT_S = 1.0
"""How long a function stands still when a signal comes, in seconds, for the event loop to have the interpreter."""

INTERRUPT_LIMIT_S = 3.0
"""How long an interrupted function may still run, in seconds, before those behind it fail."""


class Interrupted(BaseException):
    """Raised in the middle of a function that runs in the main thread, to end it."""


class _Job:
    """A function for the main thread, and the futures of whoever waits for it in the event loop."""

    def __init__(
        self, function: Callable[[], Any], loop: asyncio.AbstractEventLoop, limit_s: float | None = None
    ) -> None:
        self.limit_s = limit_s
        self._function = function
        self._loop = loop
        self.started: asyncio.Future[None] = loop.create_future()
        self.outcome: asyncio.Future[Any] = loop.create_future()
        self._deliver: Callable[[], None] = partial(self.fail, Interrupted())

    def run(self) -> None:
        """Runs the function in a context of its own: what one model sets while it is loaded is not for the next."""
        self._notify(self._start)
        try:
            result = contextvars.copy_context().run(self._function)
        except BaseException as error:  # noqa: BLE001 - it is handed to the waiter
            self._deliver = partial(self.fail, error)
        else:
            self._deliver = partial(self._finish, result)

    def deliver(self) -> None:
        """Hands the outcome of the function to the waiter."""
        self._notify(self._deliver)

    def cancel(self) -> None:
        """Has whoever waits get CancelledError; called from any thread."""
        self._notify(self._start)
        self._notify(self.outcome.cancel)

    def _notify(self, callback: Callable[..., object], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # The event loop has been closed, and nobody waits.
            self._loop.call_soon_threadsafe(callback, *args)

    def _start(self) -> None:
        if not self.started.done():
            self.started.set_result(None)

    def _finish(self, result: Any) -> None:
        if not self.outcome.done():
            self.outcome.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Hands an error to the waiter, if there still is one; runs in the event loop."""
        self._start()
        if not self.outcome.done():
            self.outcome.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))


class MainThread:
    """The main thread of a process, as its event loop sees it. Used once, by `run`."""

    def __init__(self, signals: Iterable[signal.Signals]) -> None:
        """Starts with no function to run.

        Args:
            signals: Signals that `next_signal` reports.

        """
        self._signals = tuple(signals)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._running: _Job | None = None
        self._interrupted: _Job | None = None
        self._is_stuck = self._is_ending = False
        self._limit = 0.0
        self._has_left = threading.Event()
        self._loops: list[asyncio.AbstractEventLoop] = []
        self._nowhere = Path(os.devnull).open("w")  # noqa: SIM115 - open until `run` ends
        self._wakeup, self._signalled = socket.socketpair()
        for end in (self._wakeup, self._signalled):
            end.setblocking(False)

    def run(
        self,
        serving: Coroutine[Any, Any, int],
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> int:
        """Runs a coroutine in an event loop in a thread of its own, and meanwhile what `call` hands over here.

        Args:
            serving: Gives the exit code.
            loop_factory: Makes the event loop; asyncio's default if None.

        Raises:
            BaseException: Whatever the coroutine raises.

        """
        outcome: Future[int] = Future()

        def serve() -> None:
            try:
                with asyncio.Runner(loop_factory=loop_factory) as runner:
                    outcome.set_result(runner.run(serving))
            except BaseException as error:  # noqa: BLE001 - it is raised again in the main thread
                outcome.set_exception(error)
            self._leave(outcome)

        self._claim_signals()
        threading.Thread(target=serve, name="event-loop", daemon=True).start()
        self._work()
        faulthandler.cancel_dump_traceback_later()
        self._nowhere.close()
        signal.set_wakeup_fd(-1)
        asyncio.set_event_loop(None)
        self._wakeup.close()
        self._signalled.close()
        for loop in self._loops:
            loop.close()
        return outcome.result()

    async def call(self, function: Callable[[], T], *, limit_s: float | None = None) -> T:
        """Runs a function in the main thread, once those before it have ended; gives its result or raises its error.

        Args:
            function: What to run, in a copy of the main thread's context.
            limit_s: How long it may run in seconds; the wait for its turn does not count.

        Raises:
            TimeoutError: It ran longer and was interrupted.
            StartError: A function before it cannot be interrupted, so that its turn never comes.
            CancelledError: A signal came that `next_signal` reports.

        """
        loop = asyncio.get_running_loop()
        if self._is_stuck:
            raise _stuck()
        job = _Job(function, loop, limit_s)
        self._jobs.put(job)
        await job.started
        done, _ = await asyncio.wait({job.outcome}, timeout=limit_s)
        if not done:
            job.outcome.cancel()
            self._interrupt(job)
            loop.call_later(INTERRUPT_LIMIT_S, self._fail_waiting, job)
            raise TimeoutError
        result: T = job.outcome.result()
        return result

    async def next_signal(self) -> int:
        """The number of the next signal of those that were to be reported.

        It ends the function that runs and those behind it; whoever waits for them gets CancelledError.
        """
        loop = asyncio.get_running_loop()
        while True:
            (number,) = await loop.sock_recv(self._wakeup, 1)
            if number in self._signals:
                self._is_ending = True
                if (running := self._running) is not None:
                    running.cancel()
                    self._interrupt(running)
                return int(number)

    def _work(self) -> None:
        """Runs functions until there is nothing more to come."""
        while (job := self._jobs.get()) is not None:
            # A new loop, because a model may have closed the last one or left none (`asyncio.run` does). All are kept
            # open, because a model may keep the one that it found.
            self._loops.append(asyncio.new_event_loop())
            asyncio.set_event_loop(self._loops[-1])
            # An interrupt that comes in the moment in which the function has ended has nothing left to interrupt.
            with contextlib.suppress(Interrupted):
                self._running = job
                if self._is_ending:
                    job.cancel()
                else:
                    self._set_limit(job.limit_s)
                    job.run()
                self._running = None
            self._running = None
            self._claim_signals()
            self._set_limit(None)
            job.deliver()  # Only now, so that no signal is lost that comes once the waiter knows.
        self._has_left.set()

    def _set_limit(self, limit_s: float | None) -> None:
        self._limit = time.monotonic() + (limit_s or 0.0)
        # Of the CPU time of all threads, which may be less or more than the time that passes: it comes again.
        signal.setitimer(signal.ITIMER_VIRTUAL, limit_s or 0.0, STANDSTILL_LIMIT_S if limit_s else 0.0)

    def _claim_signals(self) -> None:
        """Takes the signals over, again after a function that may have set handlers of its own."""
        for number in self._signals:
            signal.signal(number, self._on_signal)
        signal.signal(LIMIT_SIGNAL, self._on_limit)
        signal.signal(INTERRUPT_SIGNAL, self._on_interrupt)
        # Written to by Python's handler in C: a signal is reported although the main thread is busy.
        signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)

    def _on_signal(self, *_: object) -> None:
        """Stands still, so that the event loop gets the interpreter and interrupts the running function.

        Code in C may keep the interpreter to itself and only check for signals now and then, as `re.match` does. The
        pause is limited, because the function may hold a lock that the event loop waits for.
        """
        if self._running is not None:
            time.sleep(STANDSTILL_LIMIT_S)  # Not a lock, which a handler within this handler could wait for.

    def _on_limit(self, *_: object) -> None:
        """The same for a function that has run longer than it may; the clock that brings this here counts CPU time."""
        if time.monotonic() > self._limit:
            self._on_signal()

    def _on_interrupt(self, *_: object) -> None:
        if self._running is not None and self._running is self._interrupted:
            self._interrupted = None
            raise Interrupted

    def _interrupt(self, job: _Job) -> None:
        self._interrupted = job
        if self._running is job:
            main = threading.main_thread().ident
            if main is not None:
                signal.pthread_kill(main, INTERRUPT_SIGNAL)

    def _fail_waiting(self, job: _Job) -> None:
        """Fails the functions behind one that goes on although it was interrupted."""
        if self._running is not job:
            return
        self._is_stuck = True
        while not self._jobs.empty():
            waiting = self._jobs.get()
            if waiting is not None:
                waiting.fail(_stuck())

    def _leave(self, outcome: "Future[int]") -> None:
        """Lets the main thread go; ends the process where a function holds it and cannot be interrupted."""
        # Ends the process without the interpreter, should the function that runs keep that to itself.
        faulthandler.dump_traceback_later(2 * SHUTDOWN_LIMIT_S, exit=True, file=self._nowhere)
        self._jobs.put(None)
        if (running := self._running) is not None:
            self._interrupt(running)
        if self._has_left.wait(SHUTDOWN_LIMIT_S):
            return
        error = outcome.exception()
        if error is not None:
            logger.error("%s", error)
        logs.flush()
        code = error.exit_code if isinstance(error, StartError) else 1 if error is not None else outcome.result()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


def _stuck() -> StartError:
    return StartError("it cannot be loaded: the model before it is still being loaded, and cannot be interrupted")
