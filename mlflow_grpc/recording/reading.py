"""Recorded calls from files.

Rule of this module: it reads what `files` writes, and refuses anything else with an error that names the file.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mlflow_grpc.errors import StartError
from mlflow_grpc.recording.columns import SCHEMA, CallRow
from mlflow_grpc.recording.files import SUFFIX

ROWS_AT_A_TIME = 256
"""Number of calls that are in memory at the same time."""


def files_of(path: Path) -> list[Path]:
    """Returns the complete files of a directory, from the oldest to the newest, or a single file.

    Raises:
        StartError: There is none.

    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise StartError(f"{path} is no directory: name the one that a server got with --record")
    files = sorted(file for file in path.glob(f"*{SUFFIX}") if not file.name.startswith("."))
    if not files:
        raise StartError(
            f"{path} has no files of recorded calls: a server completes a file after a minute, or when it ends"
        )
    return files


def count_of(path: Path, model: str | None = None) -> tuple[int, list[str]]:
    """Returns the number of recorded calls, and the names of their models.

    Args:
        path: A directory or a file.
        model: Name of the model whose calls are counted; None for all.

    Raises:
        StartError: There is no file, a file is not of recorded calls, or none is of this model.

    """
    counts: dict[str, int] = {}
    for file in files_of(path):
        for names in _batches(file, ["model"]):
            for value in names.column(0).value_counts():
                name = str(value["values"])
                counts[name] = counts.get(name, 0) + value["counts"].as_py()
    if model is not None and model not in counts:
        raise StartError(f"{path} has no calls of the model {model}, only of {', '.join(sorted(counts)) or 'none'}")
    return sum(counts.values()) if model is None else counts[model], sorted(counts)


def calls_of(path: Path, model: str | None = None) -> Iterator[CallRow]:
    """Yields the recorded calls of one model.

    Args:
        path: A directory or a file.
        model: Its name; None if there is only one.

    Raises:
        StartError: There is no file, a file is not of recorded calls, or there are several models.

    """
    _, models = count_of(path, model)
    if model is None and len(models) > 1:
        raise StartError(f"{path} has calls of several models: name one of {', '.join(models)}")
    return (call for call in all_calls_of(path) if model is None or call.model == model)


def all_calls_of(path: Path) -> Iterator[CallRow]:
    """Yields the recorded calls of all models; raises StartError if a file is not of recorded calls."""
    for file in files_of(path):
        for batch in _batches(file, SCHEMA.names):
            for values in batch.to_pylist():
                yield CallRow(**values)


def _batches(file: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(file) as parquet:
            if missing := [name for name in names if name not in parquet.schema_arrow.names]:
                raise StartError(f"{file} is not a file of recorded calls: it has no column {missing[0]}")
            yield from parquet.iter_batches(batch_size=ROWS_AT_A_TIME, columns=names)
    except (pa.ArrowException, OSError) as error:
        raise StartError(f"cannot read {file} as Parquet: {str(error).splitlines()[0]}") from None
