"""Runs commands that take minutes: their lines go to the log, and a signal ends them with all that they have started.

Rule of this module: while commands run, a signal raises nothing in the middle of other code. It is seen where this
module waits, and `Ended` is raised there.
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
"""How long a command may take to end when it is told to, in seconds, before it is killed."""

POLL_INTERVAL_S = 0.05
"""How often it is looked whether what ends without a line has ended, in seconds."""

MAX_LAST_LINES = 8
"""How many of a failed command's last lines are in the error."""


class Ended(BaseException):
    """A signal came that ends the process."""

    def __init__(self, number: int) -> None:
        """Args:
        number: The signal.
        """
        super().__init__(signal.Signals(number).name)
        self.number = number


class CommandFailed(StartError):
    """A command ended with another exit code than 0, or could not be started."""


class Commands:
    """Runs one command at a time. A context manager: within it the signals that end a process are taken."""

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
        """Runs a command to its end and logs each line that it writes.

        Args:
            command: The program and its arguments.
            label: What stands before its lines, and what an error calls it.
            cwd: Its working directory.
            keep_open: File descriptors that it is to have too.

        Raises:
            CommandFailed: It failed; the error has its last lines.
            Ended: A signal came; the command and what it has started are gone.

        """
        arguments = [str(argument) for argument in command]
        logger.info("running %s", " ".join(arguments))
        try:
            # In a session of its own, so that all that it starts can be ended with it.
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
        """Calls a function that may take long in another thread, and gives its result or raises its error.

        Raises:
            Ended: A signal came; the thread, which cannot be stopped, does not hold up the end of the process.

        """
        future: Future[Result] = Future()

        def call() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
                future.set_exception(error)

        threading.Thread(target=call, name="fetch-environment", daemon=True).start()
        while not future.done():
            self.pause(POLL_INTERVAL_S)
        return future.result()

    def pause(self, seconds: float) -> None:
        """Waits for some time.

        Raises:
            Ended: A signal came.

        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakeup, selectors.EVENT_READ)
            selector.select(seconds)
        self._look_for_signal()

    def _log_lines(self, process: "subprocess.Popen[bytes]", label: str) -> "deque[str]":
        """Logs what a process writes until it has closed its output; gives the last lines."""
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
    """The lines from the first one on that says that it is an error, or all."""
    start = next((index for index, line in enumerate(lines) if line.lower().startswith("error")), 0)
    return "; ".join(lines[start:]) or "it wrote nothing"


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process and all that is in its group, first with a request and then by force."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(KILL_AFTER_S)
    with suppress(ProcessLookupError):  # Also of what the process has started and not waited for.
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
