"""`mlflow-grpc replay`: recorded calls of one version, made again with another one."""

import json
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlflow_grpc.recording.columns import CallRow
from mlflow_grpc.recording.files import RecordFile
from tests.rollout.conftest import ROW
from tests.support.servers import Forked, ready_address, start_server

pytestmark = pytest.mark.slow


def row(**changes: Any) -> CallRow:
    """Returns a recorded call of version 1, which answers 1 to each row."""
    fields: dict[str, Any] = {
        "request_id": "abc",
        "started_at": datetime(2026, 1, 2, tzinfo=UTC),
        "method": "/MLflow/predict",
        "model": "churn",
        "version": "1",
        "status": "OK",
        "error": None,
        "rows": 1,
        "waited_ms": 0.1,
        "model_ms": 0.2,
        "duration_ms": 0.5,
        "content_type": "application/json",
        "input": ROW,
        "output": '{"predictions": [1]}',
    }
    return CallRow(**{**fields, **changes})


def write(folder: Path, *rows: CallRow) -> Path:
    """Writes a file of recorded calls."""
    folder.mkdir()
    file = RecordFile(folder, "calls")
    file.write(list(rows))
    file.finish()
    return folder


def replay(registry: Any, *arguments: object) -> tuple[int, Forked]:
    """Returns the exit code and the output."""
    with Forked(["replay", *map(str, arguments)], {"MLFLOW_TRACKING_URI": registry.uri}) as run:
        return run.wait(), run


@pytest.mark.deep
def test_a_server_records_and_its_calls_are_replayed(registry, track, tmp_path):
    """Calls to one version have the same answers with that version (exit code 0), and others with the next (1)."""
    recorded, output = tmp_path / "recorded", tmp_path / "replayed.parquet"
    server = track("--record", str(recorded), "--record-share", "100%")
    assert server.answer() == ('{"predictions": [1]}', "1")
    assert server.answer(ROW, x_request_id="second")[1] == "1"
    server.process.signal(signal.SIGTERM)
    assert server.process.wait() == 0
    code, run = replay(registry, recorded, "--against", "models:/churn/1")
    assert code == 0, run.output
    code, run = replay(registry, recorded, "--against", "models:/churn/2", "-o", output)
    assert code == 1, run.output
    assert run.stdout[:2] == [
        "model  version  calls  same  different  errors  errors now  largest difference",
        "churn  1            2     0          2       0           0                   1",
    ]
    assert run.stdout[-1] == "  second  predictions[0]: 1 is now 2"
    assert "2 of 2 calls, 2 differ" in run.stderr
    replayed: Any = pd.read_parquet(output)
    assert replayed["is_same"].tolist() == [False, False]
    assert replayed["output"].tolist() == ['{"predictions": [1]}'] * 2
    assert replayed["replayed_output"].tolist() == ['{"predictions": [2]}'] * 2
    assert replayed["largest_difference"].tolist() == [1.0, 1.0]
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_recording_goes_on_after_a_swap(registry, track, tmp_path):
    """Calls are recorded under the version that answered them, before and after another version is published."""
    recorded = tmp_path / "recorded"
    server = track("--record", str(recorded), "--record-share", "100%")
    assert server.answer()[1] == "1"
    registry.move("2")
    server.wait_for_version("2")
    assert server.answer()[1] == "2"
    server.process.signal(signal.SIGTERM)
    assert server.process.wait() == 0
    calls = pd.read_parquet(recorded)
    assert calls["version"].tolist() == ["1", "2"]
    assert calls["output"].tolist() == ['{"predictions": [1]}', '{"predictions": [2]}']


def test_against_a_server(registry, tmp_path):
    """A running server gets the calls under the names of their models; a tolerance makes near numbers the same."""
    refused = json.dumps({"dataframe_split": {"columns": ["a"], "data": [["text"]]}})
    recorded = write(
        tmp_path / "recorded",
        row(),
        row(input=None),
        row(request_id="refused", input=refused, status="INVALID_ARGUMENT", output=None),
        row(request_id="failed", status="INTERNAL", output=None),
    )
    environment = {"MLFLOW_TRACKING_URI": registry.uri}
    with start_server("-m", "models:/churn/2", env=environment) as server:
        address = f"grpc://{ready_address(server)}"
        code, run = replay(registry, recorded, "--against", address, "--tolerance", "1")
        assert code == 1, run.output
        assert run.stdout[1].split() == ["churn", "1", "3", "2", "1", "2", "1", "-"]
        assert run.stdout[-2:] == [
            "  failed  INTERNAL is now OK",
            "1 calls were left out, because their input is not recorded",
        ]
        other = write(tmp_path / "other", row(model="nobody"))
        code, run = replay(registry, other, "--against", address)
        assert code == 2
        assert "the calls cannot be made: NOT_FOUND" in run.output


@pytest.mark.deep
def test_what_cannot_be_replayed(registry, tmp_path):
    """Nothing to read, nothing to call and calls of several models are errors that say what to do, with exit code 2."""
    recorded = write(tmp_path / "recorded", row(), row(model="iris"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.parquet").write_text("no Parquet")
    foreign = tmp_path / "foreign.parquet"
    pd.DataFrame({"x": [1]}).to_parquet(foreign)
    for arguments, reason in (
        ((tmp_path / "nowhere", "--against", "x"), "nowhere is no directory: name the one that a server got"),
        ((tmp_path / "empty", "--against", "x"), "has no files of recorded calls: a server completes a file after"),
        ((tmp_path / "broken", "--against", "x"), "x.parquet as Parquet: Parquet magic bytes not found"),
        ((foreign, "--against", "x"), "foreign.parquet is not a file of recorded calls: it has no column model"),
        ((recorded, "--against", "models:/churn/1"), "add --model with one of churn, iris"),
        ((recorded, "--against", "x", "--model", "z"), "has no calls of the model z, only of churn, iris"),
        ((recorded, "--against", "localhost:1"), "for a server, write grpc://localhost:1"),
        ((recorded, "--against", "grpc://127.0.0.1:1"), "the calls cannot be made: UNAVAILABLE: Nothing listens"),
        ((recorded, "--against", "models:/churn/99", "--model", "churn"), "99"),
        ((recorded, "--against", "grpc://x:1", "-o", "/dev/null/x"), "cannot write /dev/null/x: Not a directory"),
    ):
        code, run = replay(registry, *arguments)
        assert code == 2, run.output
        assert reason in run.output
