"""The servers of the benchmarks: this one is called by all its protocols, and each ends with all that it started."""

import os
import sys
from pathlib import Path

import pytest

from benchmarks.peers.comparison import Comparison
from benchmarks.peers.contenders import Ours
from benchmarks.processes import ServerProcess
from benchmarks.workloads import WORKLOADS
from tests.support.processes import wait_until_gone

pytestmark = pytest.mark.slow

FAMILY = '''
import os, subprocess, sys, time
wait = """
import time
while time.process_time() < 0.05:  # Five ticks of the kernel's clock.
    pass
print("up", flush=True)
time.sleep(300)
"""
quiet = dict(stdout=subprocess.PIPE, text=True)
child = subprocess.Popen([sys.executable, "-c", wait], **quiet)
daemon = subprocess.Popen([sys.executable, "-c", wait], start_new_session=True, **quiet)
for process in (child, daemon):
    process.stdout.readline()
with open(sys.argv[1], "w") as pipe:
    pipe.write(f"{child.pid} {daemon.pid}")
time.sleep(300)
'''


def test_a_server_ends_with_its_children(tmp_path):
    """A child, and a child in a session of its own, end with the server, and their CPU time is counted."""
    pipe = tmp_path / "pids"
    os.mkfifo(pipe)
    server = ServerProcess([sys.executable, "-c", FAMILY, str(pipe)], tmp_path / "server.log", tmp_path, {**os.environ})
    try:
        pids = [int(pid) for pid in pipe.read_text().split()]
        assert server.processor_s() > sum(cpu_s(pid) for pid in pids) > 0
        assert server.memory_mb() > 0
    finally:
        server.end()
    assert server.has_ended
    for pid in pids:
        wait_until_gone(pid)


def cpu_s(pid: int) -> float:
    """Returns the CPU time of a process in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.deep
def test_this_server_answers_by_all_protocols(tmp_path):
    """JSON, typed, tensors, tables and HTTP give the model's predictions, one call at a time and many at once."""
    with Comparison(WORKLOADS[0], tmp_path) as comparison:
        comparison.start(Ours(), batch_wait_s=0.01)
        figures = comparison.figures()
    assert figures["skipped"] == {}
    assert figures["servers"]["mlflow-grpc"]["start_s"] > 0
    assert "mlflow-grpc 0." in figures["servers"]["mlflow-grpc"]["versions"]
