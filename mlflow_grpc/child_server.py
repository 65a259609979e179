"""A server in a child process for a `with` block of a notebook or a test.

Rule of this module: it starts the same command that a person would. It imports neither grpc nor MLflow, and imports the
client when it makes one.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from mlflow_grpc import settings
from mlflow_grpc.arguments import arguments_of
from mlflow_grpc.errors import StartError

if TYPE_CHECKING:
    from mlflow_grpc_client import Client

MAX_KEPT_LINES = 200
"""Number of log lines that are kept, to be shown if the start fails."""

END_LIMIT_S = 5.0
"""Maximum time for the server to end after its calls have ended, in seconds."""

_READY = re.compile(r"ready: models? .* on (\S+:\d+),")


@contextlib.contextmanager
def serving(
    model: Any, client_options: Mapping[str, Any] | None, start_timeout_s: float, options: dict[str, Any]
) -> Iterator["Client"]:
    """Runs a server for a `with` block and yields a client; see `mlflow_grpc.serving`."""
    make_client = _client_class()
    with (
        _addresses(model, 1, start_timeout_s, options) as (address,),
        make_client(address, **(client_options or {})) as client,
    ):
        client.health(timeout_s=start_timeout_s)
        yield client


@contextlib.contextmanager
def serving_copies(
    model: Any, count: int, start_timeout_s: float, client_options: Mapping[str, Any]
) -> Iterator["Client"]:
    """Runs servers of one model for a `with` block, and yields a client that balances its calls between them.

    Args:
        model: What `mlflow_grpc.serving` takes.
        count: Number of servers, which are processes of this machine.
        start_timeout_s: Maximum time until all are ready, in seconds.
        client_options: Options of the client.

    Raises:
        StartError: A server has ended, or is not ready in time; the message has its last log lines.
        ModuleNotFoundError: The client is not installed.

    """
    make_client = _client_class()
    with (
        # Whoever ends the block has no use for the calls that still run. The log is read by people.
        _addresses(model, count, start_timeout_s, {"drain_timeout_s": 1.0, "log_format": "text"}) as addresses,
        make_client(",".join(addresses), **client_options) as client,
    ):
        client.health(timeout_s=start_timeout_s)
        yield client


@contextlib.contextmanager
def _addresses(model: Any, count: int, start_timeout_s: float, options: dict[str, Any]) -> Iterator[list[str]]:
    """Runs servers that start at the same time, and yields their addresses."""
    flags = _flags(model, options)
    loaded = settings.Settings.load(flags)
    until = time.monotonic() + start_timeout_s
    with contextlib.ExitStack() as stack:
        ending_s = loaded.lame_duck_s + loaded.drain_timeout_s
        children = [stack.enter_context(_Child(flags, ending_s)) for _ in range(count)]
        yield [child.wait_until_ready(max(0.0, until - time.monotonic()), start_timeout_s) for child in children]


def _client_class() -> type["Client"]:
    try:
        from mlflow_grpc_client import Client
    except ModuleNotFoundError as error:
        if error.name != "mlflow_grpc_client":
            raise
        from mlflow_grpc.distribution import SERVER, source_of

        location = Path(source_of(SERVER).location) / "client"
        where = location if location.is_dir() else "./client, in a clone of the server's repository"
        raise ModuleNotFoundError(
            f"mlflow_grpc.serving gives a client, and mlflow-grpc-client is not installed: pip install {where}",
            name=error.name,
        ) from None
    return Client


def _flags(model: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of the server, by field name.

    Raises:
        TypeError: There is no such setting, or no model.

    """
    names = [name for name, _ in settings.fields()]
    for name in options:
        if name not in names or name == "model_uri":
            raise TypeError(f"serving() has no argument {name}{_did_you_mean(name, names)}")
    # No lame duck: the only client is here, and no load balancer has to notice the shutdown.
    flags: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "end_with_stdin": True, "lame_duck_s": 0, **options}
    if model is not None:
        flags["model_uri"] = _uri_of(model)
    elif options.get("config") is None:
        raise TypeError("serving() needs a model: a directory, a URI such as models:/name/1, or config=FILE")
    return {name: value for name, value in flags.items() if value is not None}


def _uri_of(model: Any) -> str:
    """Returns the URI of a model.

    Raises:
        TypeError: The model is an object in this process, which another process cannot use.

    """
    uri = getattr(model, "model_uri", model)  # MLflow's log_model returns an object with this attribute.
    if not isinstance(uri, str | os.PathLike):
        raise TypeError(
            f"serving() takes a directory, a URI such as models:/name/1, or the result of MLflow's log_model, and not "
            f"{type(model).__name__}: the server is another process. Log the model, or save it into a directory, with "
            "its flavor's function, such as mlflow.sklearn.save_model(model, directory), and give that"
        )
    return os.fsdecode(uri)


def _did_you_mean(name: str, names: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, names, n=1)
    return f": did you mean {close[0]}?" if close else "; docs/settings.md lists the settings"


class _Child:
    """The server's process, which ends with the block."""

    def __init__(self, flags: dict[str, Any], ending_s: float) -> None:
        self._end_within_s = ending_s + END_LIMIT_S
        self._lines: deque[str] = deque(maxlen=MAX_KEPT_LINES)
        self._changed = threading.Condition()
        self._address = ""
        self._is_over = False
        # A session of its own, because Ctrl-C and interrupting a notebook's cell are meant for the block.
        self._process = subprocess.Popen(  # noqa: S603 - our own program, without a shell
            [sys.executable, "-m", "mlflow_grpc", "serve", *arguments_of(flags)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), name="serving", daemon=True)
        self._reader.start()

    def wait_until_ready(self, left_s: float, limit_s: float) -> str:
        """Waits until the server takes calls, and returns its address.

        Args:
            left_s: Maximum time to wait, in seconds.
            limit_s: The time limit of the start, for the message.

        Raises:
            StartError: It has ended, or is not ready in time; the message has its last log lines.

        """
        with self._changed:
            until = time.monotonic() + left_s
            while not self._address and not self._is_over:
                if not self._changed.wait(until - time.monotonic()):
                    break
            if self._address:
                return self._address
            lines = "\n".join(self._lines)
        if self._is_over:
            raise StartError(f"the server ended before it was ready, with exit code {self._process.wait()}:\n{lines}")
        raise StartError(f"the server was not ready within {limit_s:g} s:\n{lines}")

    def _read(self, stream: IO[bytes]) -> None:
        """Reads the server's output to its end, because a server whose output is not read loses log lines."""
        with stream:
            for line in stream:
                self._take(line.decode(errors="replace").rstrip("\n"))
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _take(self, line: str) -> None:
        ready = _READY.match(_message(line))
        with self._changed:
            self._lines.append(line)
            if ready:
                self._address = ready[1]
                self._changed.notify_all()
            is_serving = bool(self._address) and not ready
        if is_serving and _is_warning(line):
            with contextlib.suppress(OSError, ValueError):  # The stream is closed.
                print(line, file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(self._end_within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._reader.join(END_LIMIT_S)


def _fields(line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _message(line: str) -> str:
    """Returns the message of a log line; a line for people has time and level before it."""
    fields = _fields(line)
    return str(fields["message"]) if "message" in fields else re.sub(r"^\S+ [A-Z]+ +", "", line)


def _is_warning(line: str) -> bool:
    """Returns True for lines above level INFO, which are shown while the block runs."""
    level = _fields(line).get("level") or next(iter(re.findall(r"^\S+ ([A-Z]+) ", line)), "warning")
    return str(level).lower() not in ("debug", "info")
