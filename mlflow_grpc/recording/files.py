"""One Parquet file, from its first row to the moment when it is complete.

Rule of this module: a file has its name only once it is complete, so that whoever reads the directory can read every
file. Until then its name begins with a dot, which pandas, pyarrow and Spark pass over. Only the owner can read a file,
because it may have personal data.
"""

import contextlib
import io
import os
from pathlib import Path
from typing import IO

import pyarrow.parquet as pq

from mlflow_grpc.recording.columns import SCHEMA, CallRow, batch_of

SUFFIX, UNFINISHED = ".parquet", ".part"
"""Ends of the names of all files, and of the files that are not complete."""


class _Sink(io.RawIOBase):
    """A file that can be given up: pyarrow's writer then ends without an error, although nothing is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = 0
        self.is_given_up = False

    def writable(self) -> bool:
        return True

    def write(self, data: "memoryview | bytes") -> int:  # type: ignore[override]
        view = memoryview(data)
        while view and not self.is_given_up:  # A single write may take only the beginning.
            view = view[self._file.write(view) :]
        self._size += len(data)
        return len(data)

    def flush(self) -> None:
        if not self.is_given_up:
            self._file.flush()

    def tell(self) -> int:
        return self._size


class RecordFile:
    """A file that grows."""

    def __init__(self, folder: Path, name: str) -> None:
        """Creates the file; raises OSError if that is not possible.

        Args:
            folder: Its directory.
            name: Its name, without `.parquet`.

        """
        self._path = folder / f"{name}{SUFFIX}"
        self._unfinished = folder / f".{name}{SUFFIX}{UNFINISHED}"
        number = os.open(self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        # Unbuffered, so that a write that fails leaves nothing to be written later.
        self._file: IO[bytes] = os.fdopen(number, "wb", buffering=0)
        self._sink = _Sink(self._file)
        self.rows = 0
        """Number of rows that were written."""
        try:
            self._writer = pq.ParquetWriter(self._sink, SCHEMA, compression="zstd")
        except OSError:
            self._give_up()
            self._file.close()
            raise

    def write(self, rows: list[CallRow]) -> None:
        """Writes rows as a row group; raises OSError if the disk takes no more."""
        self._writer.write_batch(batch_of(rows))
        self.rows += len(rows)

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self._sink.tell()

    def finish(self) -> None:
        """Completes the file and gives it its name; raises OSError if the disk takes no more."""
        self._writer.close()
        os.fsync(self._file.fileno())
        self._file.close()
        self._unfinished.rename(self._path)

    def abandon(self) -> None:
        """Deletes the file, because it cannot be completed."""
        self._give_up()
        self._writer.close()
        self._file.close()

    def _give_up(self) -> None:
        self._sink.is_given_up = True
        with contextlib.suppress(OSError):
            self._unfinished.unlink()
