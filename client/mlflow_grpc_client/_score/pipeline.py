"""The chunks of the input through calls in flight, into parts in the order of the input.

Rule of this module: at most one chunk more than there are calls in flight is in memory.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from mlflow_grpc_client._score import readers
from mlflow_grpc_client._score.calls import Calls
from mlflow_grpc_client._score.chunks import Chunk
from mlflow_grpc_client._score.errors import InvalidUsage, ScoreError
from mlflow_grpc_client._score.files import InputFile
from mlflow_grpc_client._score.pace import Figures
from mlflow_grpc_client._score.parts import Parts
from mlflow_grpc_client._score.progress import Progress
from mlflow_grpc_client._score.scorer import FilePlan, Outcome, RowError, Scorer


class RowRefused(ScoreError):
    """A row cannot be scored, and the run stops at such rows; or there are too many of them."""

    def __init__(self, message: str, errors: list[RowError]) -> None:
        super().__init__(message)
        self.errors = errors
        """All errors of the run."""


@dataclass(frozen=True)
class Reading:
    """How files are read."""

    delimiter: str
    keep: tuple[str, ...]
    rows: int
    """Rows of a chunk."""


def plan_of(file: InputFile, calls: Calls, reading: Reading) -> tuple[FilePlan, list[str] | None]:
    """The columns of a file for the model and to keep, and those to read; None for all of each row.

    Raises:
        InvalidUsage: The file cannot be read, or lacks a column.

    """
    try:
        names = readers.names_in(file, reading.delimiter)
    except ScoreError as error:
        raise InvalidUsage(str(error)) from None
    label = file.location.label
    try:
        inputs = calls.inputs(names)
    except InvalidUsage as error:
        raise InvalidUsage(f"{label}: {error}") from None
    keep: list[str] | None = names if reading.keep == ("*",) else list(reading.keep)
    if names is None:
        return FilePlan(inputs, {}, keep), None
    for name in (*(inputs or ()), *(keep or ())):
        if name not in names:
            raise InvalidUsage(f"{label} has no column {name!r}; it has {', '.join(names)}")
    if clashes := [name for name in keep or () if name in calls.outputs]:
        raise InvalidUsage(
            f"{label}: the column {clashes[0]!r}, which --keep copies, has the name of a predicted column: add "
            "--prefix, such as --prefix predicted_"
        )
    plan = FilePlan(inputs, calls.cells(inputs or []) if file.format == "csv" else {}, keep)
    return plan, list(dict.fromkeys((*(inputs or ()), *(keep or ()))))


class Pipeline:
    """A run over all files."""

    def __init__(self, files: list[InputFile], calls: Calls, reading: Reading, parts: Parts) -> None:
        """Takes the input and the output.

        Raises:
            InvalidUsage: A file cannot be read, or lacks a column.

        """
        self._files = files
        self._reading = reading
        self._parts = parts
        self._plans = [plan_of(file, calls, reading) for file in files]
        self._bytes = sum(file.size for file in files)

    def _chunks(self) -> Iterator[tuple[Chunk, FilePlan]]:
        """The chunks that are in no part, each with the columns of its file."""
        start_index, skip = self._parts.position
        before = self._parts.end - skip  # Rows of the files before.
        bytes_before = sum(file.size for file in self._files[:start_index])
        for index in range(start_index, len(self._files)):
            file, (plan, names) = self._files[index], self._plans[index]
            end = before + skip
            for chunk in readers.chunks_of(file, self._reading.rows, names, self._reading.delimiter, skip):
                done = (bytes_before + chunk.progress * file.size) / self._bytes if self._bytes else 1.0
                end = before + chunk.end
                yield replace(chunk, first=before + chunk.first, file_index=index, progress=done), plan
            before, skip = end, 0
            bytes_before += file.size

    def run(
        self, scorer: Scorer, in_flight: int, max_errors: int, progress: Progress, cancel: Callable[[], None]
    ) -> int:
        """Scores all rows that are in no part.

        Args:
            scorer: Scores chunks.
            in_flight: Number of calls at a time.
            max_errors: Maximum number of rows that cannot be scored.
            progress: Shows the progress.
            cancel: Ends the calls in flight.

        Returns:
            The number of rows of the input, with those that cannot be scored.

        Raises:
            RowRefused: More rows than `max_errors` cannot be scored.
            ScoreError: The run cannot go on.

        """
        chunks = self._chunks()
        first = self._parts.end
        row = first
        pending: deque[Future[Outcome]] = deque()
        pool = ThreadPoolExecutor(in_flight, thread_name_prefix="score")
        try:
            while True:
                while len(pending) <= in_flight and (following := next(chunks, None)) is not None:
                    pending.append(pool.submit(scorer.score, *following))
                if not pending:
                    return row
                outcome = pending.popleft().result()
                self._add(outcome, max_errors)
                row = outcome.chunk.end
                progress.show(Figures(outcome.chunk.progress, row, row - first, len(self._parts.errors)))
        except BaseException:
            scorer.stop()
            cancel()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _add(self, outcome: Outcome, max_errors: int) -> None:
        """Adds the output of a chunk to the parts. Raises RowRefused if there are too many errors with it."""
        if len(self._parts.errors) + len(outcome.errors) > max_errors:
            errors = [*self._parts.errors, *outcome.errors]
            raise RowRefused(_refusal(errors, max_errors), errors)
        self._parts.add(outcome)


def _refusal(errors: list[RowError], max_errors: int) -> str:
    error = errors[0] if not max_errors else errors[-1]
    text = f"row {error.row} ({error.file}, row {error.row_in_file} in it): {error.reason}"
    if not max_errors:
        return f"{text}. Correct it, or leave out such rows with --on-error skip"
    return f"more than {max_errors} rows cannot be scored, the last one {text}. Raise --max-errors to leave out more"
