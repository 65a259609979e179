"""The command `mlflow-grpc replay`, from its arguments to its exit code.

Rule of this module: it combines the parts. A model is served by a child process, as for `mlflow-grpc score`, so that
calls take the same way as those to any server.
"""

import contextlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from mlflow_grpc_client import TLS, Client, IgnoredColumns, TokenFile

from mlflow_grpc import child_server
from mlflow_grpc.errors import StartError
from mlflow_grpc.recording.columns import CallRow
from mlflow_grpc.recording.reading import all_calls_of, calls_of, count_of
from mlflow_grpc.replay.calls import Replay
from mlflow_grpc.replay.progress import progress
from mlflow_grpc.replay.results import Summary, result_file

EXIT_SAME, EXIT_DIFFERENT = 0, 1

START_LIMIT_S = 600.0
"""Maximum time for the model to load, in seconds."""

TEXT = "text/plain"


@dataclass(frozen=True)
class Options:
    """What the command does."""

    recorded: Path
    """Directory of the recorded calls, or one of its files."""
    against: str
    """A model URI, or the address of a server with its scheme."""
    output: Path | None
    model: str | None
    """Name of the model whose calls are made again; None for all."""
    tolerance: float
    in_flight: int
    timeout_s: float
    token_file: Path | None
    tls_ca: Path | None


def run(options: Options) -> int:
    """Makes the calls again, writes what differs, and returns the exit code.

    Raises:
        StartError: There is nothing to replay, or nothing to replay it against.

    """
    count, models = count_of(options.recorded, options.model)
    address = address_of(options.against)
    if address is None and options.model is None and len(models) > 1:
        raise StartError(
            f"{options.recorded} has calls of several models, and {options.against} is one of them: add --model with "
            f"one of {', '.join(models)}"
        )
    summary, skip = Summary(), _Skip(options)
    with _client(options, address) as client, warnings.catch_warnings():
        warnings.simplefilter("ignore", IgnoredColumns)
        replay = Replay(
            client,
            (lambda _: None) if address is None else (lambda call: call.model),
            options.tolerance,
            options.in_flight,
        )
        with result_file(options.output) as results, progress(count) as show:
            for done, call in enumerate(replay.run(skip.calls()), 1):
                summary.add(call)
                if results is not None:
                    results.add(call)
                show(done + skip.count, summary.different)
            if skip.count:
                show(count, summary.different)
    for line in summary.lines():
        click.echo(line)
    if skip.count:
        click.echo(f"{skip.count:,} calls were left out, because their input is not recorded")
    return EXIT_DIFFERENT if summary.different else EXIT_SAME


class _Skip:
    """The calls that can be made again, and the number of the others."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.count = 0

    def calls(self) -> Iterator[CallRow]:
        path, model = self._options.recorded, self._options.model
        for call in all_calls_of(path) if model is None else calls_of(path, model):
            if call.input is None:
                self.count += 1
            else:
                yield call


def address_of(against: str) -> str | None:
    """Returns the address of a server for the client; None for a model URI.

    Raises:
        StartError: It looks like an address without a scheme.

    """
    if re.match(r"(?i)grpcs?://", against):
        return re.sub(r"(?i)^grpc://", "", against)
    if re.fullmatch(r"[\w.-]+:\d+", against) and not Path(against).exists():
        raise StartError(f"--against {against}: for a server, write grpc://{against}")
    return None


@contextlib.contextmanager
def _client(options: Options, address: str | None) -> Iterator[Client]:
    """Yields a client of the server, or of a server of the model that ends with the block."""
    if address is None:
        is_text = any(call.content_type.startswith(TEXT) for call in all_calls_of(options.recorded))
        settings = {"drain_timeout_s": 1.0, "payload": "text" if is_text else "mlflow"}
        with child_server.serving(options.against, {"timeout_s": options.timeout_s}, START_LIMIT_S, settings) as client:
            yield client
        return
    try:
        client = Client(
            address,
            timeout_s=options.timeout_s,
            tls=None if options.tls_ca is None else TLS(ca=options.tls_ca),
            token=None if options.token_file is None else TokenFile(options.token_file),
        )
    except (ValueError, OSError) as error:
        raise StartError(f"--against {options.against}: {error}") from None
    with client:
        yield client
