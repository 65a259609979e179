"""main_thread.py: functions in the main thread, while the event loop runs in another thread."""

import asyncio
import contextvars
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from mlflow_grpc import main_thread
from mlflow_grpc.errors import StartError
from mlflow_grpc.main_thread import MainThread

pytestmark = pytest.mark.slow

TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")

Run = Callable[[Callable[[MainThread], Coroutine[Any, Any, Any]]], Any]


@pytest.fixture
def run():
    """Runs a coroutine beside the main thread and returns its result; restores the signal handlers of the tests."""
    numbers = (signal.SIGTERM, signal.SIGUSR1, main_thread.INTERRUPT_SIGNAL)
    handlers = {number: signal.getsignal(number) for number in numbers}
    wakeup = signal.set_wakeup_fd(-1)

    def beside(serving: Callable[[MainThread], Coroutine[Any, Any, Any]]) -> Any:
        results = []

        async def serve(main: MainThread) -> int:
            results.append(await serving(main))
            return 0

        main = MainThread((signal.SIGTERM, signal.SIGUSR1))
        assert main.run(serve(main)) == 0
        return results[0]

    yield beside
    signal.set_wakeup_fd(wakeup)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_functions_run_in_the_main_thread(run: Run):
    """Functions run one after the other, in the order of the calls, whatever they raise."""
    entered: list[Any] = []

    def work(number: int) -> int:
        entered.append((number, threading.current_thread() is threading.main_thread()))
        if number == 1:
            raise LookupError(number)
        return number

    async def serving(main: MainThread) -> list[Any]:
        assert threading.current_thread() is not threading.main_thread()
        return await asyncio.gather(*(main.call(partial(work, number)) for number in range(3)), return_exceptions=True)

    first, error, last = run(serving)
    assert (first, last) == (0, 2)
    assert isinstance(error, LookupError)
    assert entered == [(0, True), (1, True), (2, True)]


def test_each_function_finds_an_event_loop_and_a_context_of_its_own(run: Run):
    """Each function has a fresh event loop and context, even if the one before it closed the loop and set a context
    variable."""

    def work() -> tuple[str, bool]:
        before = TENANT.get()
        TENANT.set("acme")
        is_open = not asyncio.get_event_loop().is_closed()
        asyncio.run(asyncio.sleep(0))
        return before, is_open

    async def serving(main: MainThread) -> list[Any]:
        return [await main.call(work) for _ in range(2)]

    assert run(serving) == [("nobody", True)] * 2


def test_functions_beyond_their_limit_are_interrupted(run: Run):
    """A function that exceeds its limit gets TimeoutError, and the next function has its turn."""

    async def serving(main: MainThread) -> tuple[str, str]:
        with pytest.raises(TimeoutError):
            await main.call(threading.Event().wait, limit_s=0.05)
        return await main.call(lambda: "next"), await main.call(lambda: threading.current_thread().name)

    assert run(serving) == ("next", "MainThread")


def test_an_interrupted_function_leaves_no_lock_of_logging(run: Run):
    """A function that is interrupted while it logs leaves the lock of the package logging to others."""

    def log() -> None:
        while True:
            logging.getLogger("of the interrupted function")  # Takes the lock, and releases it.

    def is_free() -> bool:
        lock: Any = logging._lock  # type: ignore[attr-defined]
        taken: bool = lock.acquire(timeout=5)
        if taken:
            lock.release()
        return taken

    async def serving(main: MainThread) -> None:
        for _ in range(8):
            with pytest.raises(TimeoutError):
                await main.call(log, limit_s=0.01)
            assert await main.call(lambda: sys.getprofile()) is None
            assert is_free()

    run(serving)


def test_the_limit_counts_from_the_start_of_a_function(run: Run):
    """A function that waits longer than its limit for its turn still runs."""
    gate = threading.Event()

    async def serving(main: MainThread) -> str:
        first = asyncio.ensure_future(main.call(gate.wait))
        second = asyncio.ensure_future(main.call(lambda: "done", limit_s=0.05))
        _, waiting = await asyncio.wait({second}, timeout=0.2)
        assert waiting
        gate.set()
        await first
        return await second

    assert run(serving) == "done"


def test_functions_behind_one_that_cannot_be_interrupted_fail(run: Run, monkeypatch):
    """Functions behind one that cannot be interrupted fail instead of waiting without end."""
    monkeypatch.setattr(main_thread, "INTERRUPT_LIMIT_S", 0.05)
    gate = threading.Event()

    def hold() -> None:
        while not gate.is_set():
            try:
                gate.wait()
            except main_thread.Interrupted:
                continue

    async def serving(main: MainThread) -> list[Any]:
        held = asyncio.ensure_future(main.call(hold, limit_s=0.05))
        behind = asyncio.ensure_future(main.call(lambda: "never"))
        outcomes = await asyncio.gather(held, behind, return_exceptions=True)
        with pytest.raises(StartError):
            await main.call(lambda: "never")
        gate.set()
        return [*outcomes]

    held, behind = run(serving)
    assert isinstance(held, TimeoutError)
    assert isinstance(behind, StartError)


def test_signals_are_reported_while_the_main_thread_is_busy(run: Run):
    """The chosen signals are reported in order, also after a function that set its own handler. The first one ends the
    running function and those behind it."""

    def busy() -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    async def serving(main: MainThread) -> list[int]:
        gate = threading.Event()
        await main.call(busy)
        working = asyncio.ensure_future(main.call(gate.wait))
        os.kill(os.getpid(), signal.SIGUSR1)
        numbers = [await main.next_signal()]
        os.kill(os.getpid(), signal.SIGTERM)
        numbers.append(await main.next_signal())
        for ended in (working, asyncio.ensure_future(main.call(gate.set))):
            with pytest.raises(asyncio.CancelledError):
                await ended
        assert not gate.is_set()
        return numbers

    assert run(serving) == [signal.SIGUSR1, signal.SIGTERM]


HOG = """
import asyncio, re, signal, sys
from mlflow_grpc.main_thread import MainThread

def hog():
    print("entered", flush=True)
    re.match("(a+)+$", "a" * 34 + "b")

async def serve(main):
    if sys.argv[1] == "signal":
        asyncio.ensure_future(main.call(hog))
        return await main.next_signal() - signal.SIGTERM
    try:
        await main.call(hog, limit_s=0.2)
    except TimeoutError:
        print(await main.call(lambda: "next"))
    return 0

main = MainThread((signal.SIGTERM,))
raise SystemExit(main.run(serve(main)))
"""
"""A function that holds the interpreter in C code for hours, and checks for signals only now and then."""


@pytest.mark.parametrize("end", ["signal", "limit"])
def test_functions_that_hold_the_interpreter_can_be_ended(end):
    """A signal ends the function, with the exit code of the event loop. So does its limit, after which others run."""
    began = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", HOG, end], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "entered\n"
            if end == "signal":
                process.terminate()
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out.strip()) == (0, "next" if end == "limit" else "")
    assert time.monotonic() - began < 30


def test_exceptions_of_the_event_loop_reach_the_main_thread(run: Run):
    """An exception of the event loop keeps its type in the main thread, because the exit code depends on it."""

    async def serving(main: MainThread) -> None:
        raise StartError("no model")

    with pytest.raises(StartError, match="no model"):
        run(serving)


STUCK = """
import asyncio, logging, threading
from mlflow_grpc import main_thread
from mlflow_grpc.errors import StartError
main_thread.SHUTDOWN_LIMIT_S = 0.2
logging.basicConfig()
entered = threading.Event()

def hold():
    entered.set()
    while True:
        try:
            threading.Event().wait()
        except BaseException:
            pass

async def serve(main):
    asyncio.ensure_future(main.call(hold))
    await asyncio.to_thread(entered.wait)
    {end}

main = main_thread.MainThread(())
print("returned", main.run(serve(main)))
"""


@pytest.mark.parametrize(("end", "code"), [("return 7", 7), ("raise StartError('no model')", 2)])
def test_uninterruptible_functions_do_not_delay_the_exit(end, code):
    """The process ends with its exit code, and the error is in the log."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", STUCK.format(end=end)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    assert ("no model" in done.stderr) == (code == 2)
    assert "returned" not in done.stdout
    assert time.monotonic() - began < 30
