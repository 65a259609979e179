"""Runs functions in the main thread while the event loop runs in another thread.

Rule of this module: it runs functions one at a time and reports signals. It knows nothing of models and gRPC.

Two features of Python work in the main thread only: `signal.signal`, and `asyncio.get_event_loop` without a running
loop. `mlflow models serve` loads its model in the main thread, so models may rely on both. Models are loaded one after
the other, because two threads that unpickle at the same time can deadlock on the import locks of modules that import
each other (`_DeadlockError`).

It has more than 300 lines, because signals, time limits and the queue act on the same running function.
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
from types import FrameType
from typing import Any, TypeVar

from mlflow_grpc import logs
from mlflow_grpc.errors import StartError
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.process import SHUTDOWN_LIMIT_S

logger = get_logger(__name__)

T = TypeVar("T")

INTERRUPT_SIGNAL = signal.SIGURG
"""Signal that interrupts a function in the main thread.

Its default action is to be ignored. Go's runtime uses it to preempt its threads for the same reason.
"""

LIMIT_SIGNAL = signal.SIGVTALRM
"""Signal of the timer that expires when a function has used as much CPU time as it has time."""

STANDSTILL_LIMIT_S = 1.0
"""Maximum pause of a function when a signal arrives, in seconds. It leaves the interpreter to the event loop."""

INTERRUPT_LIMIT_S = 3.0
"""Time that an interrupted function has to end, in seconds, before the functions behind it fail."""


class Interrupted(BaseException):
    """Raised inside a function that runs in the main thread, in order to end it."""


class _Job:
    """A function for the main thread, and the futures that its caller awaits in the event loop."""

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
        """Runs the function in a context of its own, so that context variables of one model do not reach the next."""
        self._notify(self._start)
        try:
            result = contextvars.copy_context().run(self._function)
        except BaseException as error:  # noqa: BLE001 - it is handed to the waiter
            self._deliver = partial(self.fail, error)
        else:
            self._deliver = partial(self._finish, result)

    def deliver(self) -> None:
        """Passes the outcome of the function to its caller."""
        self._notify(self._deliver)

    def cancel(self) -> None:
        """Cancels the caller's wait, which raises CancelledError there. May be called from any thread."""
        self._notify(self._start)
        self._notify(self.outcome.cancel)

    def _notify(self, callback: Callable[..., object], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # The event loop is closed, so nobody waits.
            self._loop.call_soon_threadsafe(callback, *args)

    def _start(self) -> None:
        if not self.started.done():
            self.started.set_result(None)

    def _finish(self, result: Any) -> None:
        if not self.outcome.done():
            self.outcome.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Passes an error to the caller if it still waits; runs in the event loop."""
        self._start()
        if not self.outcome.done():
            self.outcome.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))


class MainThread:
    """The main thread of a process, as its event loop uses it. `run` may be called once."""

    def __init__(self, signals: Iterable[signal.Signals]) -> None:
        """Makes an empty queue of functions.

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
        """Runs a coroutine in an event loop in another thread, and the functions of `call` in this one.

        Args:
            serving: Returns the exit code.
            loop_factory: Makes the event loop; asyncio's default if None.

        Raises:
            BaseException: Any exception of the coroutine.
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
        """Runs a function in the main thread after those before it; returns its result or raises its exception.

        Args:
            function: The function. It runs in a copy of the main thread's context.
            limit_s: Maximum duration in seconds, without the time that it waits for its turn.

        Raises:
            TimeoutError: The function took too long and was interrupted.
            StartError: A function before it cannot be interrupted, so it will never run.
            CancelledError: A signal arrived that `next_signal` reports.
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
        """Waits for the next of the signals to report and returns its number.

        The signal ends the running function and those behind it. Their callers get CancelledError.
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
        """Runs functions until the queue is closed."""
        while (job := self._jobs.get()) is not None:
            # A new loop for each function, because a model may have closed or removed the last one (`asyncio.run`
            # does).
            loop = asyncio.new_event_loop()
            references = sys.getrefcount(loop)
            asyncio.set_event_loop(loop)
            # An interrupt that arrives just after the function has ended has nothing left to interrupt.
            with contextlib.suppress(Interrupted):
                self._running = job
                if self._is_ending:
                    job.cancel()
                else:
                    self._set_limit(job.limit_s)
                    job.run()
                self._running = None
            self._running = None
            if sys.getprofile() == self._on_return:
                sys.setprofile(None)
            asyncio.set_event_loop(None)
            # A model may keep the loop that it found. A loop that no model keeps would take three files for each load.
            if sys.getrefcount(loop) > references:
                self._loops.append(loop)
            else:
                loop.close()
            self._claim_signals()
            self._set_limit(None)
            job.deliver()  # Last, so that signals are handled again before the caller goes on.
            del job  # It has the result, and another function may come much later.
        self._has_left.set()

    def _set_limit(self, limit_s: float | None) -> None:
        self._limit = time.monotonic() + (limit_s or 0.0)
        # The timer counts the CPU time of all threads, which can be less or more than elapsed time, so it repeats.
        signal.setitimer(signal.ITIMER_VIRTUAL, limit_s or 0.0, STANDSTILL_LIMIT_S if limit_s else 0.0)

    def _claim_signals(self) -> None:
        """Installs the signal handlers, again after each function, because it may have set its own."""
        for number in self._signals:
            signal.signal(number, self._on_signal)
        signal.signal(LIMIT_SIGNAL, self._on_limit)
        signal.signal(INTERRUPT_SIGNAL, self._on_interrupt)
        # Python's C handler writes to it, so a signal is reported even while the main thread is busy.
        signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)

    def _on_signal(self, *_: object) -> None:
        """Pauses, so that the event loop gets the interpreter and can interrupt the running function.

        C code may hold the interpreter and check for signals only now and then, as `re.match` does. The pause is
        limited, because the function may hold a lock that the event loop waits for.
        """
        if self._running is not None:
            time.sleep(STANDSTILL_LIMIT_S)  # Not a lock, because a nested signal handler could deadlock on it.

    def _on_limit(self, *_: object) -> None:
        """Pauses like `_on_signal` if the function has exceeded its limit in elapsed time; the timer counts CPU."""
        if time.monotonic() > self._limit:
            self._on_signal()

    def _on_interrupt(self, _: int, frame: FrameType | None) -> None:
        """Raises Interrupted in the running function, or once it has left the code of `logging`.

        An exception between two instructions of that code can leave its locks held, and then nothing in the process can
        log any more, so that it never ends.
        """
        if _is_in_logging(frame):
            sys.setprofile(self._on_return)
        else:
            self._raise_interrupted()

    def _on_return(self, frame: FrameType, event: str, _: object) -> None:
        if event == "return" and not _is_in_logging(frame.f_back):
            sys.setprofile(None)
            self._raise_interrupted()

    def _raise_interrupted(self) -> None:
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
        """Fails the functions that wait behind a function that ignored its interruption."""
        if self._running is not job:
            return
        self._is_stuck = True
        while not self._jobs.empty():
            if (waiting := self._jobs.get()) is not None:
                waiting.fail(_stuck())

    def _leave(self, outcome: "Future[int]") -> None:
        """Lets `run` return, or ends the process if a function cannot be interrupted."""
        # Ends the process even if the running function never releases the interpreter.
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


def _is_in_logging(frame: FrameType | None) -> bool:
    """Returns True if a frame, or one that has called it, runs code of the package `logging`."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] == "logging":
            return True
        frame = frame.f_back
    return False


def _stuck() -> StartError:
    return StartError("it cannot be loaded: the model before it is still being loaded, and cannot be interrupted")
