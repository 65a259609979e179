"""perf_analyzer, the load generator of Triton, measures a server over gRPC and HTTP."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.triton.test_open_inference_page import PERF_ANALYZER


@pytest.fixture(scope="module")
def command() -> str:
    """The command, which needs glibc 2.38; the tests are skipped without it."""
    name = "perf_analyzer"
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip("perf_analyzer is not installed")
    tried = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=30, check=False)
    if tried.returncode:
        pytest.skip(f"perf_analyzer does not start here: {tried.stderr.strip()}")
    return found


@pytest.mark.triton
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_one_row_at_a_time(command, server, protocol, tmp_path):
    """It reads descriptions and statistics, and all its calls are answered."""
    shown = next(line.split() for line in PERF_ANALYZER.splitlines() if protocol in line.split())
    assert shown[:5] == ["perf_analyzer", "-m", "iris", "-i", protocol]
    address = server.address if protocol == "grpc" else server.url.removeprefix("http://")
    report = tmp_path / "report.csv"
    arguments = [*shown[1:5], "-u", address, "-b", "1", "--concurrency-range", "4"]
    window = ["--measurement-mode", "count_windows", "--measurement-request-count", "200", "-r", "3", "-s", "1000"]
    done = subprocess.run(
        [command, *arguments, *window, "-f", str(report)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = csv.DictReader(report.read_text().splitlines())
    assert float(row["Inferences/Second"]) > 0
    assert float(row["Server Compute Infer"]) > 0
