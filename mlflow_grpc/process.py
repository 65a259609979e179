"""How a process of ours begins and ends."""

import asyncio
import contextlib
import os
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, NoReturn, TextIO

from mlflow_grpc import logs

END_WITHOUT_LAME_DUCK = signal.SIGUSR2
"""What the supervisor of several workers sends them in the place of SIGINT and SIGHUP, which a terminal sends to all
processes of a group."""

MAX_OPEN_FILES = 65_536
"""Number of open files up to which the limit is raised; libraries that go through all numbers take long beyond it."""

SHUTDOWN_LIMIT_S = 3.0
"""How long exit handlers and threads that a model has left may take, in seconds."""


def reopen_standard_streams() -> None:
    """Opens the null device as stdin, stdout or stderr where it is closed.

    A daemon tool may close them; the next file that is opened then takes the number, and what is meant for
    a terminal goes into a socket. libuv aborts when it is to close such a one. Python has no object for a stream that
    was closed when it started; whoever writes to it by its name would fail.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # POSIX: the lowest free number, which is this one.
            os.set_inheritable(number, True)  # Workers start with the same streams.
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))


def raise_open_files_limit() -> None:
    """Raises the limit of open files, of which each connection takes one, as far as a process may raise it itself.

    Shells commonly set the soft limit to 1,024, for programs that use `select`; Go's runtime raises it in the same way.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < target:
        with contextlib.suppress(OSError, ValueError):  # The system does not allow it: the server has fewer files.
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))


def end_with_stdin() -> None:
    """Sends this process a SIGTERM when its standard input ends, as it does with the process at the other end."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="stdin", daemon=True).start()


def demote_warnings() -> None:
    """Has warnings that the environment makes errors (`PYTHONWARNINGS=error`, `-W error`) be log lines instead.

    Any library may warn while it is imported, and a server that cannot start for that helps nobody.
    """
    filters: Any = warnings.filters  # A list, whatever its type stub says.
    if any(action == "error" for action, *_ in filters):
        filters[:] = [entry for entry in filters if entry[0] != "error"]
        warnings.simplefilter("default", append=True)


def ending_signals() -> tuple[signal.Signals, ...]:
    """The signals that end a server: SIGTERM, SIGINT and, unless it is ignored as under nohup, SIGHUP.

    SIGHUP is what a terminal sends when it closes, often twice; so a second signal is one of the others.
    """
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGTERM, signal.SIGINT, *hangup)


def reset_signals_after_fork(numbers: Iterable[signal.Signals]) -> None:
    """Has a process that a model forks end at these signals, as others do.

    It has this process's handlers and its wake-up socket: a signal that is sent to the child, as `multiprocessing.Pool`
    does to end its processes, would end the server in its place. One that comes before the child has let go of both
    waits until then.
    """
    of_thread = threading.local()

    def hold() -> None:
        of_thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, of_thread.mask)

    def let_go() -> None:
        signal.set_wakeup_fd(-1)
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=let_go)


def end_process(code: int, last_words: str = "") -> NoReturn:
    """Ends the process in bounded time: exit handlers run, but a thread that never ends does not hold it.

    Args:
        code: The exit code.
        last_words: A line for stderr, after those of the log; it is lost if nobody reads.

    """
    deadline = threading.Timer(SHUTDOWN_LIMIT_S, os._exit, (code,))
    deadline.daemon = True
    deadline.start()
    if last_words:
        logs.flush()
        with contextlib.suppress(OSError, ValueError):  # A model may have put another stream in stderr's place.
            print(last_words, file=sys.__stderr__ or sys.stderr, flush=True)
    for stream in (sys.stdout, sys.stderr):
        _empty(stream)
    sys.exit(code)


def _empty(stream: TextIO) -> None:
    """Writes what a standard stream holds, or throws it away where that cannot be: Python would end with code 120."""
    try:
        stream.flush()
    except OSError:  # A full disk, or a pipe that nobody reads.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
    except ValueError:  # It is closed.
        return


async def in_daemon_thread(function: Callable[[], Any]) -> Any:
    """Runs a function in a thread that cannot hold up the exit, as the threads of an executor do."""
    outcome: Future[Any] = Future()
    outcome.set_running_or_notify_cancel()  # It cannot be cancelled: nothing can stop the thread.

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001 - it is handed to the waiter
            outcome.set_exception(error)

    threading.Thread(target=run, name="load-model", daemon=True).start()
    return await asyncio.wrap_future(outcome)
