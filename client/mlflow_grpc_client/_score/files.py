"""Files of the input and the output: local paths, and URLs of fsspec's file systems.

Rule of this module: it names and describes files; `readers` and `writers` know what is in them.
"""

import glob
import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pyarrow import fs

from mlflow_grpc_client._score.errors import InvalidUsage

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
"""Formats by the ends of names."""

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
"""Compressions of CSV files and JSON lines by the ends of names."""

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://")


@dataclass(frozen=True)
class Location:
    """A path in a file system."""

    system: Any
    """A pyarrow.fs.FileSystem."""
    path: str
    label: str
    """The path or URL, for people."""

    def sibling(self, suffix: str) -> "Location":
        """The location whose name has a suffix."""
        return Location(self.system, self.path + suffix, self.label + suffix)

    def inside(self, name: str) -> "Location":
        """The location of a file in this folder."""
        return Location(self.system, f"{self.path}/{name}", f"{self.label}/{name}")

    @property
    def exists(self) -> bool:
        """True if there is a file or folder."""
        return bool(self.system.get_file_info(self.path).type != fs.FileType.NotFound)


@dataclass(frozen=True)
class InputFile:
    """A file of the input."""

    location: Location
    format: str
    compression: str
    """pyarrow's name; empty for none."""
    size: int
    """Bytes."""
    stamp: str
    """Time of the last change, or what the file system has in its place."""

    @property
    def identity(self) -> list[Any]:
        """What is compared when a run is resumed."""
        return [self.location.label, self.size, self.stamp]


def locate(text: str) -> Location:
    """The location of a path or URL.

    Raises:
        InvalidUsage: Its file system needs a package that is not installed.

    """
    match = _URL.match(text)
    if match is None:
        return Location(fs.LocalFileSystem(), os.path.abspath(text), text)  # noqa: PTH100 - keeps a glob
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(text)
    except ImportError as error:
        raise InvalidUsage(
            f"{match[0]} needs fsspec and its package for {match[0]}: pip install fsspec, and s3fs for s3, gcsfs for "
            f"gs, adlfs for az ({error})"
        ) from None
    except ValueError as error:
        raise InvalidUsage(f"{text}: {error}") from None
    return Location(fs.PyFileSystem(fs.FSSpecHandler(system)), path, text)


def format_of(name: str, chosen: str | None) -> tuple[str, str]:
    """The format and the compression of a file by its name; empty texts for a name that says nothing."""
    *_, before_last, last = ("", "", *PurePosixPath(name.lower()).suffixes)
    compression = COMPRESSIONS.get(last, "")
    suffix = before_last if compression else last
    return chosen or FORMATS.get(suffix, ""), compression


def input_files(texts: list[str], chosen_format: str | None) -> list[InputFile]:
    """The files of the input: those of a folder and of a glob in the order of their names.

    Raises:
        InvalidUsage: There is no such file, or the format of a file is unknown.

    """
    files: list[InputFile] = []
    for text in texts:
        infos = _infos(locate(text), text, chosen_format)
        if not infos:
            raise InvalidUsage(f"{text}: there is no such file, or no file with a known format in it")
        files += [_input_file(location, info, chosen_format) for location, info in infos]
    return files


def _infos(location: Location, text: str, chosen_format: str | None) -> list[tuple[Location, Any]]:
    system = location.system
    info = system.get_file_info(location.path)
    if info.type == fs.FileType.File:
        return [(location, info)]
    if info.type == fs.FileType.Directory:
        infos = system.get_file_info(fs.FileSelector(location.path, recursive=True))
        prefix = location.path.rstrip("/")
        files = [
            (_labelled(location, item.path, text.rstrip("/") + item.path[len(prefix) :]), item)
            for item in infos
            if item.type == fs.FileType.File
            and format_of(item.base_name, chosen_format)[0]
            and not any(step.startswith((".", "_")) for step in item.path[len(prefix) :].split("/"))
        ]
        return sorted(files, key=lambda pair: str(pair[1].path))
    if not glob.has_magic(text):
        return []
    if isinstance(system, fs.LocalFileSystem):
        paths = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - paths as the user has written them
        located = [(path, os.path.abspath(path)) for path in paths]  # noqa: PTH100
    else:
        scheme = _URL.match(text)
        start = scheme[0] if scheme else ""
        located = [(start + path.lstrip("/"), path) for path in sorted(system.handler.fs.glob(location.path))]
    pairs = [(_labelled(location, path, label), system.get_file_info(path)) for label, path in located]
    return [(item, info) for item, info in pairs if info.type == fs.FileType.File]


def _labelled(location: Location, path: str, label: str) -> Location:
    return Location(location.system, path, label)


def _input_file(location: Location, info: Any, chosen_format: str | None) -> InputFile:
    name, compression = format_of(location.path, chosen_format)
    if not name:
        raise InvalidUsage(
            f"{location.label}: the format is unknown, because the name ends in none of {', '.join(FORMATS)}: add "
            "--input-format"
        )
    if compression and name not in ("csv", "jsonl"):
        raise InvalidUsage(f"{location.label}: decompress it first; Parquet and Arrow are compressed within")
    handler = getattr(location.system, "handler", None)
    stamp = str(info.mtime_ns) if handler is None else str(handler.fs.ukey(location.path))
    return InputFile(location, name, compression, int(info.size or 0), stamp)
