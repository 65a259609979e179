"""Long-running commands whose lines go to the log, and which a signal ends together with all their children.

Rule of this module: while commands run, a signal raises no exception in the middle of other code. The module notices
the signal where it waits, and raises `Ended` there.
"""

import os
import selectors
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar

from mlflow_grpc.errors import StartError
from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.process import ending_signals

logger = get_logger(__name__)

Result = TypeVar("Result")

KILL_AFTER_S = 3.0
"""Seconds between SIGTERM and SIGKILL for a command."""

POLL_INTERVAL_S = 0.05
"""Seconds between checks for the end of a process or a thread that writes no lines."""

MAX_LAST_LINES = 8
"""Maximum number of a failed command's last lines in the error."""


class Ended(BaseException):
    """A signal that ends the process has arrived."""

    def __init__(self, number: int) -> None:
        """Names the signal in the text of the exception.

        Args:
            number: Number of the signal.

        """
        super().__init__(signal.Signals(number).name)
        self.number = number


class CommandFailed(StartError):
    """A command could not be started, or its exit code is not 0."""


class Commands:
    """Runs one command at a time.

    As a context manager, it catches the signals that end a process.
    """

    def __enter__(self) -> Self:
        self._wakeup, self._signalled = socket.socketpair()
        self._wakeup.setblocking(False)
        self._signalled.setblocking(False)
        self._previous = {number: signal.signal(number, lambda *_: None) for number in ending_signals()}
        self._previous_fd = signal.set_wakeup_fd(self._signalled.fileno())
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._previous_fd)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._wakeup.close()
        self._signalled.close()

    def run(
        self, command: Sequence[str | Path], *, label: str, cwd: Path | None = None, keep_open: Sequence[int] = ()
    ) -> None:
        """Runs a command to its end and logs its output line by line.

        Args:
            command: The program and its arguments.
            label: The prefix of its lines, and its name in errors.
            cwd: Its working directory.
            keep_open: File descriptors that the command inherits.

        Raises:
            CommandFailed: The command failed. The error has its last lines.
            Ended: A signal arrived. The command and its children have ended.

        """
        arguments = [str(argument) for argument in command]
        logger.info("running %s", " ".join(arguments))
        try:
            # In a session of its own, so that its children can be ended with it.
            process = subprocess.Popen(  # noqa: S603 - programs of the interpreter or that the operator has installed
                arguments,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=tuple(keep_open),
            )
        except OSError as error:
            raise CommandFailed(f"cannot run {arguments[0]}: {error.strerror}") from error
        try:
            last_lines = self._log_lines(process, label)
            while process.poll() is None:
                self.pause(POLL_INTERVAL_S)
        except Ended:
            _end(process)
            raise
        if process.returncode:
            raise CommandFailed(f"{label} failed with exit code {process.returncode}: {_summary(list(last_lines))}")

    def call(self, function: Callable[[], Result]) -> Result:
        """Calls a slow function in another thread, and returns its result or raises its error.

        Raises:
            Ended: A signal arrived. The thread cannot be stopped, but it does not delay the end of the process.

        """
        future: Future[Result] = Future()

        def call() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
                future.set_exception(error)

        threading.Thread(target=call, name="fetch-environment", daemon=True).start()
        while not future.done():
            self.pause(POLL_INTERVAL_S)
        return future.result()

    def pause(self, seconds: float) -> None:
        """Waits for a number of seconds.

        Raises:
            Ended: A signal arrived.

        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakeup, selectors.EVENT_READ)
            selector.select(seconds)
        self._look_for_signal()

    def _log_lines(self, process: "subprocess.Popen[bytes]", label: str) -> "deque[str]":
        """Logs the output of a process until the process closes it, and returns the last lines."""
        last_lines: deque[str] = deque(maxlen=MAX_LAST_LINES)
        with selectors.DefaultSelector() as selector, _output_of(process) as output:
            selector.register(self._wakeup, selectors.EVENT_READ)
            selector.register(output, selectors.EVENT_READ)
            unfinished = b""
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                self._look_for_signal()
                if output not in ready:
                    continue
                data = os.read(output.fileno(), 65536)
                *lines, unfinished = (unfinished + data.replace(b"\r", b"\n")).split(b"\n")
                for text in filter(None, (_text(line) for line in (lines if data else [unfinished]))):
                    logger.info("%s: %s", label, text)
                    last_lines.append(text)
                if not data:
                    return last_lines

    def _look_for_signal(self) -> None:
        with suppress(BlockingIOError):
            for number in self._wakeup.recv(64):
                if number in self._previous:
                    raise Ended(number)


def _output_of(process: "subprocess.Popen[bytes]") -> IO[bytes]:
    if process.stdout is None:
        raise ValueError("the process was started without a pipe for its output")
    return process.stdout


def _text(line: bytes) -> str:
    return line.decode(errors="replace").strip()


def _summary(lines: list[str]) -> str:
    """Joins the lines from the first that begins with "error", or all lines."""
    start = next((index for index, line in enumerate(lines) if line.lower().startswith("error")), 0)
    return "; ".join(lines[start:]) or "it wrote nothing"


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process and its group, first by SIGTERM and then by SIGKILL."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(KILL_AFTER_S)
    with suppress(ProcessLookupError):  # The group may still have children that the process has not waited for.
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
