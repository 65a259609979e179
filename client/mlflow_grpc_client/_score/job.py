"""A run of `score`: its files, its model, and how it ends.

Rule of this module: it prints the lines about a run, and decides the exit codes.
"""

import argparse
import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from mlflow_grpc_client import Client
from mlflow_grpc_client._cli.output import complain, warnings_as_lines
from mlflow_grpc_client._score import files, model
from mlflow_grpc_client._score.errors import InvalidUsage, ScoreError
from mlflow_grpc_client._score.pace import Figures
from mlflow_grpc_client._score.parts import Parts
from mlflow_grpc_client._score.pipeline import Pipeline, Reading, RowRefused
from mlflow_grpc_client._score.progress import progress, say
from mlflow_grpc_client._score.scorer import Scorer

EXIT_STOPPED, EXIT_SKIPPED, EXIT_INTERRUPTED = 1, 3, 130

_OPTIONS = ("columns", "keep", "prefix", "params", "delimiter")
"""Arguments that have to be the same when a run is resumed."""


class Job:
    """The files of a run."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Checks the files.

        Args:
            args: The arguments of `arguments.add_scoring`.

        Raises:
            InvalidUsage: The input is missing, or the output exists or has no known format.

        """
        self._args = args
        self._inputs = files.input_files(args.input, args.input_format)
        self._output = files.locate(args.output)
        self._format, compression = files.format_of(args.output, args.output_format)
        if not self._format or compression:
            raise InvalidUsage(
                f"{args.output}: the format is unknown: let the name end in .parquet, .csv, .jsonl or .arrow, or add "
                "--output-format"
            )
        if any(file.location.path == self._output.path for file in self._inputs):
            raise InvalidUsage(f"{args.output} is a file of the input: write to another one")
        self._errors_file = files.locate(args.errors) if args.errors else self._output.sibling(".errors.jsonl")
        self._parts = Parts(self._output, self._errors_file)
        self._parts.check_free(resume=args.resume, overwrite=args.overwrite)

    def run(self, client: Client, name: str) -> int:
        """Scores the input and returns the exit code.

        Args:
            client: Calls the model. Closed if the run ends while there are calls in flight.
            name: Name of the model; empty for the only one.

        Raises:
            InvalidUsage: A file cannot be read or does not fit the model, or the run to resume was another one.
            ScoreError: A file cannot be written before the first row is scored.
            PredictError: No server answers.

        """
        args = self._args
        with warnings_as_lines():
            calls, identity = model.calls_of(
                client, name, params=args.params, columns=args.columns, prefix=args.prefix, timeout_s=args.timeout
            )
            work = Pipeline(self._inputs, calls, Reading(args.delimiter, args.keep, args.rows), self._parts)
            self._parts.begin(
                {
                    "input": [file.identity for file in self._inputs],
                    "model": identity,
                    "options": {option: getattr(args, option) for option in _OPTIONS},
                },
                resume=args.resume,
            )
            max_errors = args.max_errors if args.on_error == "skip" else 0
            scorer = Scorer(calls, max_faults=max_errors + 1, retry_s=args.retry_for)
            try:
                self._score(work, scorer, client, max_errors)
            except KeyboardInterrupt:
                self._parts.flush()
                say(f"interrupted: {self._kept}")
                return EXIT_INTERRUPTED
            except ScoreError as error:
                self._parts.flush()
                self._parts.write_errors(error.errors if isinstance(error, RowRefused) else self._parts.errors)
                complain(str(error))
                say(self._kept)
                return EXIT_STOPPED
        count = len(self._parts.errors)
        skipped = f"; {count:,} rows are left out, see {self._errors_file.label}" if count else ""
        say(f"{args.output} has {self._parts.row_count:,} rows{skipped}")
        return EXIT_SKIPPED if count else 0

    def _score(self, work: Pipeline, scorer: Scorer, client: Client, max_errors: int) -> None:
        first = self._parts.end
        if first:
            say(f"going on at row {first:,}")
        with _terminable(), progress() as shown:
            count = work.run(scorer, self._args.in_flight, max_errors, shown, client.close)
            shown.show(Figures(1.0, count, count - first, len(self._parts.errors)), is_last=True)
            self._parts.finish(self._format, shown.writing)

    @property
    def _kept(self) -> str:
        return f"{self._parts.end:,} rows are kept; the same command with --resume goes on there"


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM interrupt a run like SIGINT."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
