"""The lock file is written completely, by one process at a time, and keeps its permissions."""

import fcntl
import logging
import os
import stat
import threading
from pathlib import Path

import pytest

from mlflow_grpc.contract.lockfile import io as lock_io
from mlflow_grpc.contract.lockfile.format import LockedModel, LockFile


def lock_of(*labels):
    return LockFile(models={label: LockedModel(name=label) for label in labels})


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_concurrent_writers_do_not_mix(tmp_path, monkeypatch):
    """If two processes write at once, each writes its own complete file, and none takes the other's."""
    path, replace = tmp_path / "a.json", Path.replace

    def other_first(self, target):
        monkeypatch.setattr(Path, "replace", replace)
        lock_io.write(path, lock_of("other"))
        assert lock_io.read(path) == lock_of("other")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", other_first)
    lock_io.write(path, lock_of("mine"))
    assert lock_io.read(path) == lock_of("mine")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    """A failed write keeps the old file and leaves no other, and the error names the lock."""
    path = tmp_path / "a.json"
    lock_io.write(path, lock_of("old"))

    def full(descriptor):
        raise OSError(28, "No space left on device", str(tmp_path / "other"))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        lock_io.write(path, lock_of("new"))
    assert caught.value.filename == str(path)
    assert lock_io.read(path) == lock_of("old")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o666])
def test_permissions_are_kept(tmp_path, mode):
    """Permissions are kept, whatever the umask is; a new file has those of any new file."""
    path, any_file = tmp_path / "a.json", tmp_path / "any"
    any_file.touch()
    lock_io.write(path, lock_of("m"))
    assert mode_of(path) == mode_of(any_file)
    path.chmod(mode)
    lock_io.write(path, lock_of("n"))
    assert (mode_of(path), lock_io.read(path)) == (mode, lock_of("n"))


def test_read_only_files_are_not_written(tmp_path):
    """A read-only file is not written, also not by root, and no process waits to hold it."""
    path = tmp_path / "a.json"
    lock_io.write(path, lock_of("m"))
    path.chmod(0o444)
    for attempt in (lambda: lock_io.write(path, lock_of("n")), lambda: lock_io.exclusive(path).__enter__()):
        with pytest.raises(PermissionError, match="Permission denied") as caught:
            attempt()
        assert caught.value.filename == str(path)
    assert lock_io.read(path) == lock_of("m")


def test_a_missing_directory_is_an_error(tmp_path):
    """A lock in a missing directory raises an error that names the lock and no temporary file."""
    path = tmp_path / "none" / "a.json"
    for attempt in (lambda: lock_io.write(path, lock_of("n")), lambda: lock_io.exclusive(path).__enter__()):
        with pytest.raises(FileNotFoundError) as caught:
            attempt()
        assert (caught.value.filename, caught.value.filename2) == (str(path), None)


def test_processes_take_turns(tmp_path, caplog):
    """The second process waits, logs that, and reads what the first has written."""
    caplog.set_level(logging.INFO)
    path, waits = tmp_path / "a.json", threading.Event()
    lock_io.write(path, lock_of())

    class Tells(logging.Handler):
        def emit(self, record):
            waits.set()

    def add(label):
        with lock_io.exclusive(path):
            lock_file = lock_io.read(path)
            if label == "first":
                second.start()
                assert waits.wait(30)
            lock_io.write(path, lock_of(*lock_file.models, label))

    second = threading.Thread(target=add, args=("second",))
    teller = Tells()
    lock_io.logger.addHandler(teller)
    try:
        add("first")
        second.join(30)
    finally:
        lock_io.logger.removeHandler(teller)
    assert lock_io.read(path) == lock_of("first", "second")
    assert [log_record.getMessage() for log_record in caplog.records] == [
        f"waiting for another run that writes a lock in {tmp_path}"
    ]


def test_file_systems_without_locks_work_with_a_warning(tmp_path, monkeypatch, caplog):
    """Without directory locks, the file is still written, with a warning."""

    def refuse(descriptor, operation):
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock_io.exclusive(tmp_path / "a.json"):
        lock_io.write(tmp_path / "a.json", lock_of("m"))
    assert lock_io.read(tmp_path / "a.json") == lock_of("m")
    assert f"another run must not write {tmp_path}/a.json now" in caplog.text
