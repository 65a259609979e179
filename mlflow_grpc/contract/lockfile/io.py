"""Reading and writing of lock files.

Rule of this module: a file is written completely, and by one process at a time.
"""

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlflow_grpc.contract.lockfile import format as lock_format
from mlflow_grpc.contract.lockfile.format import LockFile
from mlflow_grpc.errors import StartError
from mlflow_grpc.own_loggers import get_logger

logger = get_logger(__name__)


def read(path: Path) -> LockFile:
    """Reads a lock file.

    Raises:
        StartError: The file cannot be read, or is not a lock file.

    """
    try:
        return lock_format.parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        hint = "; make one with `mlflow-grpc proto --lock FILE`" if isinstance(error, FileNotFoundError) else ""
        raise StartError(f"cannot read the lock {path}: {error.strerror}{hint}") from error
    except UnicodeDecodeError as error:
        raise StartError(f"{path} is not a valid lock file: it is not UTF-8. {lock_format.REMEDY}") from error


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds a lock file from the read to the write, so that no other process's models are lost.

    Other processes wait. The directory is held, because the file is replaced at each write, and a file only for this
    purpose would end up under version control.

    Raises:
        OSError: The file cannot be written. The error names the lock file.

    """
    with _errors_name(path):
        _check_writable(path)
        directory = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another run that writes a lock in %s", path.resolve().parent)
            fcntl.flock(directory, fcntl.LOCK_EX)
        except OSError as error:  # Some network file systems have no locks on directories.
            logger.warning("another run must not write %s now: it cannot be held (%s)", path, error.strerror)
        yield
    finally:
        os.close(directory)


def write(path: Path, lock_file: LockFile) -> None:
    """Replaces a lock file, completely or not at all. Owner and permissions stay.

    Raises:
        OSError: The file cannot be written, or is read-only. The error names the lock file.

    """
    with _errors_name(path):
        _check_writable(path)
        target = path.resolve()  # The target of a symbolic link is replaced, and the link stays.
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.new")
        try:
            with temporary.open("x", encoding="utf-8") as file:
                if target.exists():
                    _copy_permissions(target, file.fileno())
                file.write(lock_format.text_of(lock_file))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def _check_writable(path: Path) -> None:
    """Refuses a read-only file, because replacing it would need the permissions of the directory only."""
    if path.exists() and not (path.stat().st_mode & 0o222 and os.access(path, os.W_OK)):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _copy_permissions(source: Path, descriptor: int) -> None:
    status = source.stat()
    with suppress(PermissionError):  # Only root may change the owner of a file.
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))


@contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    """Makes errors name the lock file instead of its directory or a temporary file."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
