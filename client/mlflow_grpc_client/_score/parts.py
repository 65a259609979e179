"""The folder OUTPUT.parts of a running or interrupted run, and the output that is made of it.

A part is an Arrow file with the output of consecutive rows. Its name has the numbers of these rows in the input, and
its metadata the errors among them. It gets its name when it is complete, so that a process that is killed leaves a run
that another can resume.

Rule of this module: nothing but these files holds the state of a run.
"""

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
from pyarrow import fs

from mlflow_grpc_client._score import columns
from mlflow_grpc_client._score.chunks import tables_of
from mlflow_grpc_client._score.errors import InvalidUsage, ScoreError
from mlflow_grpc_client._score.files import Location
from mlflow_grpc_client._score.scorer import Outcome, RowError
from mlflow_grpc_client._score.writers import ROW_GROUP_ROWS, writer

MAX_PART_BYTES = 32 * 1024 * 1024
MAX_PART_S = 10.0
"""Bounds of the output that is lost when the process is killed: bytes in memory, and seconds since the last part."""

_JOB = "job.json"
_NAME = re.compile(r"rows-(\d{15})-(\d{15})\.arrow")
_STATE = b"mlflow-grpc-score"
"""Key of the errors and the position in the metadata of a part."""


class Parts:
    """The parts of an output."""

    def __init__(self, output: Location, errors_file: Location) -> None:
        """Takes the file to write, and the file for rows that cannot be scored."""
        self._output = output
        self._errors_file = errors_file
        self._folder = output.sibling(".parts")
        self._parts: list[tuple[int, int]] = []
        self._tables: list[Any] = []
        self._pending_errors: list[RowError] = []
        self._bytes = 0
        self._end = 0
        self._written_at = time.monotonic()
        self.position = (0, 0)
        """The file and the number of the row in it that follow the last part, or the last chunk that was added."""
        self.errors: list[RowError] = []
        """The errors in all parts, and in the rows that are in no part yet."""
        self.row_count = 0
        """Rows of the output."""

    @property
    def end(self) -> int:
        """Number of the first row of the input that is in no part."""
        return self._parts[-1][1] if self._parts else 0

    def check_free(self, *, resume: bool, overwrite: bool) -> None:
        """Checks that a run would replace nothing.

        Raises:
            InvalidUsage: There is an output or an interrupted run.

        """
        is_interrupted = self._job_file.exists
        if overwrite or (resume and is_interrupted):
            return
        if is_interrupted:
            raise InvalidUsage(
                f"{self._folder.label} has the rows of an interrupted run: add --resume to go on, or --overwrite to "
                "begin again"
            )
        for file in (self._output, self._errors_file):
            if file.exists:
                raise InvalidUsage(f"{file.label} exists: add --overwrite to replace it")

    def begin(self, job: dict[str, Any], *, resume: bool) -> None:
        """Creates the folder, or reads that of an interrupted run.

        Args:
            job: What has to be the same when the run is resumed, as JSON.
            resume: True to go on with an interrupted run, if there is one.

        Raises:
            InvalidUsage: The interrupted run was another one.
            ScoreError: The folder cannot be written or read.

        """
        job = json.loads(json.dumps(job))
        with _output_errors(self._folder):
            if resume and self._job_file.exists:
                self._check_job(job)
                self._read_parts()
                return
            self._remove_folder()
            self._folder.system.create_dir(self._folder.path, recursive=True)
            self._put(_JOB, lambda stream: stream.write(json.dumps(job, indent=1).encode()))

    @property
    def _job_file(self) -> Location:
        return self._folder.inside(_JOB)

    def _check_job(self, job: dict[str, Any]) -> None:
        with self._open(_JOB) as stream:
            before = json.loads(stream.read())
        for name, value in job.items():
            if before.get(name) != value:
                raise InvalidUsage(
                    f"this is not the run that was interrupted: the {name} changed. Run it as before, or add "
                    "--overwrite instead of --resume to begin again"
                )

    def _read_parts(self) -> None:
        """Reads the parts without a gap. Incomplete ones, and those after them, are written again."""
        infos = self._folder.system.get_file_info(fs.FileSelector(self._folder.path))
        ranges = sorted((int(match[1]), int(match[2])) for info in infos if (match := _NAME.fullmatch(info.base_name)))
        for first, end in ranges:
            if first != self.end:
                break
            try:
                with self._reader((first, end)) as reader:
                    state = json.loads(reader.schema.metadata[_STATE])
                    self.row_count += sum(batch.num_rows for batch in _batches(reader))
            except (pa.ArrowInvalid, OSError):
                break
            self.errors += [RowError(**error) for error in state["errors"]]
            self.position = tuple(state["position"])
            self._parts.append((first, end))
        self._end = self.end

    def add(self, outcome: Outcome) -> None:
        """Adds the output of the next chunk, and writes a part if it is time to."""
        if outcome.table is not None:
            self._tables.append(outcome.table)
            self._bytes += outcome.table.nbytes
            self.row_count += outcome.table.num_rows
        self._pending_errors += outcome.errors
        self.errors += outcome.errors
        self._end, self.position = outcome.chunk.end, outcome.chunk.position
        if self._bytes >= MAX_PART_BYTES or time.monotonic() - self._written_at >= MAX_PART_S:
            self.flush()

    def flush(self) -> None:
        """Writes the rows that are in no part yet into one.

        Raises:
            ScoreError: It cannot be written.

        """
        if self._end == self.end:
            return
        schema = columns.unified(table.schema for table in self._tables)
        state = {"position": self.position, "errors": [error.as_dict() for error in self._pending_errors]}
        tables = [columns.conformed(table, schema) for table in self._tables]
        schema = schema.with_metadata({_STATE: json.dumps(state)})

        def write(stream: Any) -> None:
            with pa.ipc.new_file(stream, schema) as arrow:
                for table in tables:
                    arrow.write_table(table.replace_schema_metadata(schema.metadata))

        rows = (self.end, self._end)
        with _output_errors(self._folder):
            self._put(_name(rows), write)
        self._parts.append(rows)
        self._tables, self._pending_errors, self._bytes = [], [], 0
        self._written_at = time.monotonic()

    def finish(self, format_name: str, advance: Callable[[float], None]) -> None:
        """Makes the output of the parts, and removes them.

        Args:
            format_name: The format of the output.
            advance: Called with the share that is written, from 0 to 1.

        Raises:
            ScoreError: The output cannot be written.

        """
        self.flush()
        with _output_errors(self._output):
            schema = columns.unified(self._schemas())
            self._put("output", lambda stream: self._join(format_name, stream, schema, advance))
            self.write_errors(self.errors)
            self._output.system.move(self._folder.inside("output").path, self._output.path)
            self._remove_folder()

    def write_errors(self, errors: list[RowError]) -> None:
        """Writes the errors file; removes an old one if there are no errors.

        Raises:
            ScoreError: It cannot be written.

        """
        file = self._errors_file
        with _output_errors(file):
            if errors:
                with file.system.open_output_stream(file.path) as stream:
                    stream.write(b"".join(columns.json_bytes(error.as_dict()) + b"\n" for error in errors))
            elif file.exists:
                file.system.delete_file(file.path)

    def _schemas(self) -> Iterator[Any]:
        for rows in self._parts:
            with self._reader(rows) as reader:
                yield reader.schema

    def _join(self, format_name: str, stream: Any, schema: Any, advance: Callable[[float], None]) -> None:
        done = 0
        with writer(format_name, stream, schema) as output:
            for table in tables_of(self._conformed_batches(schema), ROW_GROUP_ROWS):
                output.write_table(table)
                done += table.num_rows
                advance(done / self.row_count)

    def _conformed_batches(self, schema: Any) -> Iterator[Any]:
        for rows in self._parts:
            with self._reader(rows) as reader:
                for batch in _batches(reader):
                    yield from columns.conformed(pa.Table.from_batches([batch]), schema).to_batches()

    @contextlib.contextmanager
    def _reader(self, rows: tuple[int, int]) -> Iterator[Any]:
        with self._open(_name(rows)) as source, pa.ipc.open_file(source) as reader:
            yield reader

    def _open(self, name: str) -> Any:
        return self._folder.system.open_input_file(self._folder.inside(name).path)

    def _put(self, name: str, write: Callable[[Any], None]) -> None:
        """Writes a file under a temporary name, and gives it its name when it is complete."""
        system, path = self._folder.system, self._folder.inside(name).path
        with system.open_output_stream(path + ".tmp") as stream:
            write(stream)
        system.move(path + ".tmp", path)

    def _remove_folder(self) -> None:
        if self._folder.exists:
            self._folder.system.delete_dir(self._folder.path)


def _name(rows: tuple[int, int]) -> str:
    return f"rows-{rows[0]:015}-{rows[1]:015}.arrow"


def _batches(reader: Any) -> Iterator[Any]:
    return (reader.get_batch(index) for index in range(reader.num_record_batches))


@contextlib.contextmanager
def _output_errors(location: Location) -> Iterator[None]:
    """Turns errors of a file system into a ScoreError with the name of the file."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise ScoreError(f"{location.label} cannot be written: {error}") from None
