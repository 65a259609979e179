"""`mlflow-grpc-predict score`: rows that cannot be scored, interrupted and resumed runs, progress, memory."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow_grpc_client._score.pace import Figures, Pace, duration
from mlflow_grpc_client._score.progress import Lines

from tests.support import scored
from tests.support.score_files import Model, assert_same, read, served, write
from tests.support.servers import Process

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

COMMAND = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from mlflow_grpc_client._score import parts; parts.MAX_PART_S = 0.0; "  # A part for each chunk.
    "from mlflow_grpc_client._cli.command import main; main()",
    "score",
]


@pytest.fixture(scope="module")
def orders(tmp_path_factory) -> Iterator[Model]:
    with served(scored.Orders(), tmp_path_factory.mktemp("scored") / "orders", scored.SIGNATURE) as model:
        yield model


@pytest.fixture
def closed_gate() -> Iterator[None]:
    """The model waits at rows with GATE_PRICE until the test opens the gate."""
    scored.reached.clear()
    scored.gate.clear()
    yield
    scored.gate.set()


def errors_of(path: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def with_bad_rows(count: int, bad: list[int]) -> pd.DataFrame:
    frame = scored.orders(count)
    frame.loc[bad, "price"] = scored.BAD_PRICE
    return frame


@pytest.mark.parametrize("name", ["in.parquet", "in.csv", "in.jsonl"])
def test_rows_that_the_model_refuses(orders, tmp_path, name):
    """With --on-error skip, rows for which the model fails are left out, and are in the errors file with their number
    in the input and in their file; all others are scored."""
    bad = [0, 17, 18, 99, 100, 149]
    frame = with_bad_rows(150, bad)
    frame["discount"] = frame["discount"].round(6)
    frame["price"] = frame["price"].round(6)
    folder = tmp_path / "in"
    folder.mkdir()
    write(frame[:100], folder / f"a_{name}")
    write(frame[100:].reset_index(drop=True), folder / f"b_{name}")
    code, error = orders.score(folder, "-o", tmp_path / "out.parquet", "--rows", 40, "--on-error", "skip")
    assert (code, error.splitlines()[-1]) == (
        3,
        f"{tmp_path / 'out.parquet'} has 144 rows; 6 rows are left out, see {tmp_path / 'out.parquet.errors.jsonl'}",
    )
    assert_same(read(tmp_path / "out.parquet"), orders.predict(frame.drop(bad)[scored.INPUTS]))
    errors = errors_of(tmp_path / "out.parquet.errors.jsonl")
    assert [item["row"] for item in errors] == bad
    assert [item["row_in_file"] for item in errors] == [0, 17, 18, 99, 0, 49]
    assert [item["file"] for item in errors] == [str(folder / f"{'ab'[row >= 100]}_{name}") for row in bad]
    assert all("INTERNAL: " in item["reason"] for item in errors)


def test_rows_that_cannot_be_read(orders, tmp_path):
    """Rows of CSV with other types, too few values, or texts that are not UTF-8, and lines that are not JSON, are in the
    errors file, and all others are scored, also if a call has no other rows."""
    frame = scored.orders(6)[scored.INPUTS].assign(name=list("abcdef"))
    lines = frame.to_csv(index=False).splitlines()
    lines[2] = lines[2].replace(lines[2].split(",")[0], "cheap")
    lines[4] = "1.5"
    lines[5] = "1.5,1e99,e,maybe,"
    (tmp_path / "in.csv").write_text("\n".join(lines))
    for rows in (1, 4, 100):
        code, error = orders.score(
            tmp_path / "in.csv", "-o", tmp_path / "out.csv", "--on-error", "skip", "--rows", rows, "--overwrite"
        )
        assert code == 3, error
        assert_same(read(tmp_path / "out.csv"), orders.predict(frame.iloc[[0, 2, 5]]))
        assert [(item["row"], item["reason"]) for item in errors_of(tmp_path / "out.csv.errors.jsonl")] == [
            (1, "price: 'cheap' is not a number"),
            (3, "the row has 1 values, and the header 5 names"),
            (4, "count: '1e99' is not a whole number"),
        ]
    (tmp_path / "in.csv").write_bytes("\n".join(lines).replace(",a,", ",\u00fc,").encode("latin-1"))
    code, error = orders.score(
        tmp_path / "in.csv", "-o", tmp_path / "latin.csv", "--on-error", "skip", "--keep", "name"
    )
    assert code == 3, error
    assert read(tmp_path / "latin.csv")["name"].tolist() == ["c", "f"]
    assert errors_of(tmp_path / "latin.csv.errors.jsonl")[0]["reason"] == "name: b'\\xfc' is not UTF-8"
    records = frame.round(6).to_json(orient="records", lines=True).splitlines()
    records[1:3] = ["{", "[1]"]
    (tmp_path / "in.jsonl").write_text("\n".join(records))
    code, _ = orders.score(tmp_path / "in.jsonl", "-o", tmp_path / "lines.csv", "--on-error", "skip")
    assert code == 3
    assert [item["row"] for item in errors_of(tmp_path / "lines.csv.errors.jsonl")] == [1, 2]


def test_stop_at_the_first_bad_row(orders, tmp_path):
    """By default a run stops at the first row that cannot be scored, names it, and writes no output. It goes on without
    the bad rows by --resume and --on-error skip, and does not score rows again."""
    frame = with_bad_rows(100, [61, 75])
    path, output = write(frame, tmp_path / "in.parquet"), tmp_path / "out.parquet"
    code, error = orders.score(path, "-o", output, "--rows", 10, "--errors", tmp_path / "bad.jsonl")
    assert (code, f"error: row 61 ({path}, row 61 in it): INTERNAL" in error) == (1, True), error
    assert "60 rows are kept" in error
    assert [item["row"] for item in errors_of(tmp_path / "bad.jsonl")] == [61]
    assert not output.exists()
    scored.row_counts.clear()
    arguments = (path, "-o", output, "--rows", 7, "--errors", tmp_path / "bad.jsonl", "--on-error", "skip")
    code, error = orders.score(*arguments, "--resume")
    assert (code, "going on at row 60" in error, sum(scored.row_counts)) == (3, True, 38), error
    assert_same(read(output), orders.predict(frame.drop([61, 75])[scored.INPUTS]))
    assert [item["row"] for item in errors_of(tmp_path / "bad.jsonl")] == [61, 75]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bad.jsonl", "in.parquet", "out.parquet"]


def test_too_many_bad_rows(orders, tmp_path):
    """--max-errors ends a run in which most rows are bad, after few calls."""
    path = write(with_bad_rows(1000, list(range(1000))), tmp_path / "in.parquet")
    code, error = orders.score(path, "-o", tmp_path / "out.csv", "--on-error", "skip", "--max-errors", 3)
    assert (code, "more than 3 rows cannot be scored" in error) == (1, True), error
    assert [item["row"] for item in errors_of(tmp_path / "out.csv.errors.jsonl")] == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("in.parquet", signal.SIGKILL),
        *(
            pytest.param(name, how, marks=pytest.mark.deep)
            for name, how in (
                ("in.csv", signal.SIGINT),
                ("in.jsonl", signal.SIGTERM),
                ("in.parquet", signal.SIGINT),
                ("in.parquet", signal.SIGTERM),
                ("in.csv", signal.SIGKILL),
                ("in.csv", signal.SIGTERM),
                ("in.jsonl", signal.SIGKILL),
                ("in.jsonl", signal.SIGINT),
            )
        ),
    ],
)
def test_resume(orders, tmp_path, closed_gate, name, how):
    """A run that was killed or interrupted in the middle goes on where it was, also with other sizes of calls: the output
    is that of a run without a break, and rows in parts are not scored again."""
    frame = scored.orders(200).round({"discount": 6, "price": 6})
    frame.loc[[20, 150], "price"] = scored.BAD_PRICE
    frame.loc[120, "price"] = scored.GATE_PRICE
    (tmp_path / "in").mkdir()
    write(frame[:70], tmp_path / "in" / f"a_{name}")
    write(frame[70:].reset_index(drop=True), tmp_path / "in" / f"b_{name}")
    output = tmp_path / "out.parquet"
    arguments = [str(tmp_path / "in"), "-o", str(output), "-a", orders.address, "--on-error", "skip", "--keep", "city"]
    with Process([*COMMAND, *arguments, "--rows", "10", "--in-flight", "2"]) as run:
        assert scored.reached.wait(60), run.output
        run.signal(how)
        if how != signal.SIGKILL:
            run.wait_for("interrupted: .* the same command with --resume goes on there")
        assert run.wait() == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    assert not output.exists()
    scored.gate.set()
    scored.row_counts.clear()
    code, error = orders.score(*arguments[:-4], "--on-error", "skip", "--keep", "city", "--rows", 13, "--resume")
    assert (code, "going on at row" in error) == (3, True), error
    assert sum(scored.row_counts) < 120
    left = frame.drop([20, 150])
    expected = pd.concat([left[["city"]], orders.predict(left[scored.INPUTS])], axis=1)
    assert_same(read(output), expected)
    assert [item["row"] for item in errors_of(tmp_path / "out.parquet.errors.jsonl")] == [20, 150]
    assert not (tmp_path / "out.parquet.parts").exists()


@pytest.fixture
def stopped(orders, tmp_path) -> list[Any]:
    """The arguments of a run that has stopped at a bad row."""
    path = write(with_bad_rows(40, [33]), tmp_path / "in.csv")
    arguments = [path, "-o", tmp_path / "out.csv", "--rows", 10]
    assert orders.score(*arguments)[0] == 1
    return arguments


def test_a_run_is_not_mixed_with_another(orders, stopped, tmp_path):
    """--resume is refused if the input or an option has changed, and a new run needs --overwrite."""
    code, error = orders.score(*stopped)
    assert (code, "add --resume to go on, or --overwrite to begin again" in error) == (2, True)
    code, error = orders.score(*stopped, "--keep", "id", "--resume")
    assert (code, "the options changed" in error) == (2, True)
    os.utime(tmp_path / "in.csv", (1, 1))
    code, error = orders.score(*stopped, "--resume")
    assert (code, "the input changed" in error) == (2, True)
    code, error = orders.score(*stopped, "--on-error", "skip", "--overwrite")
    assert (code, "going on" in error) == (3, False)


@pytest.mark.slow
def test_resume_with_another_model(stopped, tmp_path):
    """--resume is refused if the server has another model."""
    with served(scored.Orders(), tmp_path / "other", scored.SIGNATURE, name="other") as other:
        code, error = other.score(*stopped, "--resume")
    assert (code, "the model changed" in error) == (2, True), error


def test_a_damaged_part_is_scored_again(orders, stopped, tmp_path):
    """A part that lacks its end, as after a power failure, is not used."""
    (part,) = (tmp_path / "out.csv.parts").glob("rows-*.arrow")
    part.write_bytes(part.read_bytes()[:100])
    code, error = orders.score(*stopped, "--on-error", "skip", "--resume")
    assert (code, "going on" in error) == (3, False)
    frame = with_bad_rows(40, [33]).drop(33)
    assert_same(read(tmp_path / "out.csv"), orders.predict(frame[scored.INPUTS]))


def test_a_disk_that_cannot_be_written(orders, tmp_path):
    """An output in a folder that is a file ends the run with the reason."""
    path = write(scored.orders(5), tmp_path / "in.csv")
    (tmp_path / "file").write_text("x")
    code, error = orders.score(path, "-o", tmp_path / "file" / "out.csv")
    assert (code, "cannot be written" in error) == (1, True), error


@pytest.mark.slow
def test_a_call_that_is_too_large(tmp_path):
    """Calls over the server's size limit are halved until they fit."""
    frame = scored.orders(100)
    with served(scored.Orders(), tmp_path / "model", scored.SIGNATURE, max_message_bytes=2_500) as model:
        code, error = model.score(write(frame, tmp_path / "in.parquet"), "-o", tmp_path / "out.parquet")
        assert code == 0, error
        assert_same(read(tmp_path / "out.parquet"), model.predict(frame[scored.INPUTS]))


def test_lines_of_progress(capsys):
    """Where there is no terminal, progress is a line every ten seconds, and counts what an earlier run has scored as
    done but not as fast."""
    now = [0.0]
    lines = Lines(lambda: now[0])
    for seconds, done, rows in ((5, 0.55, 5_500), (10, 0.6, 6_000), (19, 0.7, 7_000), (20, 0.75, 7_500)):
        now[0] = float(seconds)
        lines.show(Figures(done, rows, rows - 5_000, 2))
    lines.show(Figures(1.0, 10_000, 5_000, 2), is_last=True)
    assert capsys.readouterr().err.splitlines() == [
        "60 %, 6,000 rows, 100 rows/s, 2 errors, 0:40 left",
        "75 %, 7,500 rows, 125 rows/s, 2 errors, 0:20 left",
        "100 %, 10,000 rows, 250 rows/s, 2 errors",
    ]
    assert (duration(59.6), duration(3_723)) == ("1:00", "1:02:03")
    assert Pace(lambda: 0.0).of(Figures(0.0, 0, 0, 0)) == (0.0, None)


@pytest.mark.slow
def test_the_bar(orders, tmp_path):
    """In a terminal, progress is a bar with rows, rows a second and errors."""
    pytest.importorskip("rich")
    path = write(scored.orders(100), tmp_path / "in.parquet")
    terminal, stderr = pty.openpty()
    command = [*COMMAND, str(path), "-o", str(tmp_path / "out.csv"), "-a", orders.address]
    with subprocess.Popen(command, stderr=stderr, env={**os.environ, "TERM": "xterm", "COLUMNS": "150"}) as run:
        os.close(stderr)
        output = b""
        try:
            while data := os.read(terminal, 1000):
                output += data
        except OSError:  # The other end is closed.
            pass
        assert run.wait(60) == 0, output
    os.close(terminal)
    assert "━" in output.decode()
    assert "100 rows," in output.decode()
    assert "0 errors" in output.decode()


@pytest.mark.deep
@pytest.mark.alone
@pytest.mark.timeout(600)
def test_memory_is_bounded(tmp_path):
    """Ten times the rows take no more memory: 2,000,000 rows with a kept text at most 150 MB more than 200,000."""

    names = [f"f{index}" for index in range(20)]
    signature = ModelSignature(Schema([ColSpec(DataType.double, name) for name in names]))
    peaks = []
    with served(scored.Untyped(), tmp_path / "sum", signature) as model:
        for count in (200_000, 2_000_000):
            path = tmp_path / f"{count}.parquet"
            with pq.ParquetWriter(
                path, pa.schema([*((name, pa.float64()) for name in names), ("id", pa.string())])
            ) as file:
                for start in range(0, count, 100_000):
                    numbers = np.random.default_rng(start).normal(size=(20, 100_000))
                    ids = pa.array([f"row {row}" for row in range(start, start + 100_000)])
                    file.write_table(pa.table([*numbers, ids], schema=file.schema))
            output = tmp_path / "out.parquet"
            run = subprocess.Popen([*COMMAND, path, "-o", output, "-a", model.address, "--keep", "id", "--overwrite"])
            _, status, usage = os.wait4(run.pid, 0)
            run.returncode = os.waitstatus_to_exitcode(status)
            assert run.returncode == 0
            assert pq.ParquetFile(output).metadata.num_rows == count
            peaks.append(usage.ru_maxrss / 1024)
    assert peaks[1] - peaks[0] < 150, peaks
