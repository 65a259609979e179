"""Start and end of a server process: standard streams, signals, warnings, gRPC's environment, exit."""

import contextlib
import os
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Iterable
from typing import Any, NoReturn, TextIO

from mlflow_grpc import logs

END_WITHOUT_LAME_DUCK = signal.SIGUSR2
"""Signal by which the supervisor of several workers stops them without a lame duck phase.

It replaces SIGINT and SIGHUP, which a terminal sends to all processes of the group.
"""

END_REPLACED = signal.SIGUSR1
"""Signal by which the supervisor ends a worker once another one serves in its place."""

REPEAT_LIMIT_S = 0.05
"""Time in which two signals of the same number are one request, in seconds.

GNU timeout signals its child, and then the group of processes that the child is in.
"""

MAX_OPEN_FILES = 65_536
"""Number of open files up to which the limit is raised; libraries that go through all numbers take long beyond it."""

SHUTDOWN_LIMIT_S = 3.0
"""Maximum time for exit handlers and for threads that a model has left behind, in seconds."""


def reopen_standard_streams() -> None:
    """Replaces closed standard streams (stdin, stdout, stderr) by the null device.

    A daemon tool may close them. The next file or socket that is opened would then get the free number, and output for
    the terminal would be written into it. libuv aborts when it closes such a socket. Python sets `sys.stdout` to None
    for a stream that was closed at start, so a write to it would fail.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # POSIX returns the lowest free number, which is this one.
            os.set_inheritable(number, True)  # Workers inherit the same streams.
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))


def is_second_signal(number: int, first: int, elapsed_s: float) -> bool:
    """Returns True if a signal during the shutdown ends it at once.

    A terminal that closes sends SIGHUP twice, so SIGHUP never does.

    Args:
        number: Number of the signal.
        first: Number of the signal that began the shutdown.
        elapsed_s: Time since then, in seconds.

    """
    return number != signal.SIGHUP and (number != first or elapsed_s > REPEAT_LIMIT_S)


def shutdown_notice(number: int, step: str) -> str:
    """Returns the sentence for the log about a signal that begins the shutdown, and its first step."""
    return f"{signal.Signals(number).name}: {step}; another signal ends the server at once"


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
    """Sends SIGTERM to this process when its standard input ends, which happens when its parent process ends."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="stdin", daemon=True).start()


def demote_warnings() -> None:
    """Logs warnings that the environment turns into errors (`PYTHONWARNINGS=error`, `-W error`).

    Any library may warn while it is imported, and that should not keep a server from starting.
    """
    filters: Any = warnings.filters  # The type stub says Sequence, but it is a list.
    if any(action == "error" for action, *_ in filters):
        filters[:] = [entry for entry in filters if entry[0] != "error"]
        warnings.simplefilter("default", append=True)


def prepare_grpc_core() -> None:
    """Sets the environment of gRPC's core, which reads it when `grpc` is imported.

    The core then writes nothing to stderr, because its messages reach the operator as lines of our log. It installs no
    fork handlers, because they crash one in four processes that a model forks. Operators can override both variables.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def ending_signals() -> tuple[signal.Signals, ...]:
    """Returns the signals that end a server: SIGTERM, SIGINT, and SIGHUP unless it is ignored (nohup).

    A terminal that closes often sends SIGHUP twice, so a repeated SIGHUP does not count as the second signal.
    """
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGTERM, signal.SIGINT, *hangup)


def reset_signals_after_fork(numbers: Iterable[signal.Signals]) -> None:
    """Restores the default action of these signals in processes that a model forks.

    A forked child inherits the server's signal handlers and wake-up socket. Without this, a signal that ends the child
    (as `multiprocessing.Pool` does) would be reported to the server and end it instead. Signals stay blocked from
    before the fork until the child has reset both.
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
    """Ends the process in bounded time: runs the exit handlers, but does not wait for threads that never end.

    Args:
        code: The exit code.
        last_words: Last lines for stderr, after the log lines. Lost if stderr has no reader.
    """
    deadline = threading.Timer(SHUTDOWN_LIMIT_S, os._exit, (code,))
    deadline.daemon = True
    deadline.start()
    if last_words:
        logs.flush()
        with contextlib.suppress(OSError, ValueError):  # A model may have replaced stderr.
            print(last_words, file=sys.__stderr__ or sys.stderr, flush=True)
    for stream in (sys.stdout, sys.stderr):
        _empty(stream)
    sys.exit(code)


def _empty(stream: TextIO) -> None:
    """Flushes a standard stream, or discards its buffer if it cannot be written; Python would exit with code 120."""
    try:
        stream.flush()
    except OSError:  # A full disk, or a pipe without a reader.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
    except ValueError:  # The stream is closed.
        return
