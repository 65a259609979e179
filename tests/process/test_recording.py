"""Recorded calls of server processes: complete after SIGTERM, readable after SIGKILL, and of no effect on calls if the disk
fails."""

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.process.conftest import payload
from tests.process.test_workers import pids, seen_by
from tests.support.servers import ready_address

pytestmark = pytest.mark.slow

QUICK_ANSWER = '{"predictions"'


def recorded(folder: Path) -> Any:
    """Returns the recorded calls of all complete files."""
    return pd.read_parquet(folder)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_are_complete_after_sigterm_with_several_workers(start, tmp_path):
    """Each worker completes a file of its own when SIGTERM ends the server, and no call is missing."""
    process = start("-w", "2", "--record", str(tmp_path), "--record-share", "100%")
    address, calls = ready_address(process), 60
    assert len(seen_by(address, calls)) == 2
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert len(recorded(tmp_path)) == calls
    assert len(names(tmp_path)) == 2
    assert all(name.endswith(".parquet") and not name.startswith(".") for name in names(tmp_path))


def test_complete_files_are_readable_after_sigkill(start, connect, tmp_path):
    """A killed worker leaves a hidden file at most, which readers pass over; the other worker's calls are all there."""
    process = start("-w", "2", "--record", str(tmp_path), "--record-share", "1")
    address = ready_address(process)
    assert len(seen_by(address, 60)) == 2
    victim = pids(process)[0]
    os.kill(victim, signal.SIGKILL)
    process.wait_for(rf"pid {victim}\) ended with code -9")
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert 0 < len(recorded(tmp_path)) < 60
    assert len([name for name in names(tmp_path) if not name.startswith(".")]) == 1


@pytest.mark.deep
@pytest.mark.parametrize("room", [2, 5_000])
def test_a_full_disk_costs_only_recorded_calls(start, connect, tmp_path, room):
    """While the disk takes no more, calls are answered, and one line reports it; later, calls are recorded again."""
    process = start("--record", str(tmp_path), "--record-share", "1")
    text = payload("pid")
    call = connect(process)
    pid = process.popen.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (room, hard))
    try:
        for _ in range(1000):  # As many rows as are written at a time.
            assert call(text).startswith(QUICK_ANSWER)
        process.wait_for(f"cannot record calls in {tmp_path}: File too large")
        assert names(tmp_path) == []
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
    while "calls are recorded again" not in process.output:
        assert call(text).startswith(QUICK_ANSWER)
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert process.output.count("cannot record calls") == 1
    assert json.loads(recorded(tmp_path)["input"][0]) == json.loads(text)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--record", "/dev/null/x"), "--record /dev/null/x: Not a directory; name a directory"),
        (("--record-share", "0%"), "--record-share '0%': must be above 0 and at most 1"),
        (("--record-share", "many"), "--record-share 'many'"),
        (("--record-share", "1,5%"), "must be a percentage such as 1%, or a number such as 0.01"),
    ],
)
def test_settings_that_cannot_be(start, flags, reason):
    """A directory that cannot be written, or a share that is no number from 0 to 1, is an error at the start."""
    process = start(*flags)
    assert process.wait() == 2
    assert reason in process.output


def test_a_model_of_its_own_kind_is_recorded(start, connect, tmp_path):
    """Calls of an MLModel class are recorded like others, and its recorded input is a payload that it takes."""
    process = start("--record", str(tmp_path), "--record-share", "100%")
    call = connect(process)
    answer = call(payload("pid"))
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    (row,) = recorded(tmp_path).itertuples()
    assert (row.input, row.output, row.model, row.version) == (payload("pid"), answer, "model", "1.0.0")
