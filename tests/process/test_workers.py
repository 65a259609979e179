"""Several worker processes on one port, and their supervisor."""

import itertools
import json
import os
import re
import resource
import shutil
import signal
import socket
import time
from pathlib import Path

import grpc
import pytest

from mlflow_grpc.process import REPEAT_LIMIT_S
from tests.process.conftest import Held, payload
from tests.support.servers import Caller, free_port, ready_address


def pids(process):
    """Returns the workers' process ids, in the order of their start."""
    matches = [re.search(r"worker (\d+) started, pid (\d+)", line) for line in list(process.stderr)]
    return [int(match[2]) for match in matches if match]


def fresh(address):
    """Opens a new connection, which the kernel may assign to any worker."""
    return Caller(address)


def seen_by(address, calls=40):
    """Returns the process ids that answer on new connections."""
    answering = set()
    for _ in range(calls):
        with fresh(address) as call:
            answering.add(json.loads(call(payload("pid")))["predictions"])
    return answering


def alive(pid):
    """Returns True if a process runs; an orphan that has ended may remain a zombie if nobody reaps it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_share_the_port(start):
    """Connections reach both workers. There is one ready line, SIGTERM drains both, and the exit code is 0."""
    process = start("-w", "2", fresh=True)
    address = ready_address(process)
    assert "2 workers" in process.stdout[0]
    assert len(process.stdout) == 1
    assert seen_by(address) == set(pids(process))
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert not [pid for pid in pids(process) if alive(pid)]


@pytest.mark.alone
def test_a_worker_that_dies_is_replaced(start):
    """The replacement starts within 2 s, listens only once it is loaded, and does not affect the other worker."""
    process = start("-w", "2")
    address = ready_address(process)
    victim, survivor = pids(process)
    stays = Caller(address)
    while json.loads(stays(payload("pid")))["predictions"] != survivor:
        stays = Caller(address)
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    process.wait_for(rf"worker \d+ \(pid {victim}\) ended with code -9 \(killed by SIGKILL, .*\); a new one starts")
    while len(pids(process)) < 3:
        stays(payload("x"))
    assert time.monotonic() - began < 2
    replacement = pids(process)[2]
    while replacement not in seen_by(address, 5):
        assert json.loads(stays(payload("pid")))["predictions"] == survivor
    process.wait_for(rf"worker \d serves, pid {replacement}")
    process.signal(signal.SIGTERM)
    assert process.wait() == 0


@pytest.mark.alone
def test_forked_processes_do_not_hide_a_dead_worker(start):
    """A process forked by the model keeps its worker's pipes open. The worker is still replaced, and the exit is quick."""
    process = start("-w", "2")
    address = ready_address(process)
    with fresh(address) as call:
        dead = json.loads(call(payload("pid")))["predictions"]
        child = json.loads(call(payload("fork")))["predictions"]
    try:
        os.kill(dead, signal.SIGKILL)
        process.wait_for(rf"worker \d+ \(pid {dead}\) ended with code -9", timeout_s=2)
        process.wait_for(r"worker \d+ started", times=3, timeout_s=2)
        process.signal(signal.SIGTERM)
        assert process.popen.wait(10) == 0
        assert alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_worker_that_cannot_be_started_is_retried(start):
    """A temporary lack of resources affects neither the supervisor nor the other worker."""
    process = start("-w", "2")
    address = ready_address(process)
    victim, survivor = pids(process)
    supervisor = process.popen.pid
    limits = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
    # A lower limit would also forbid the supervisor to wait for the files that it has open.
    lowest_free = next(fd for fd in itertools.count() if not Path(f"/proc/{supervisor}/fd/{fd}").is_symlink())
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    os.kill(victim, signal.SIGKILL)
    process.wait_for(r"worker \d+ cannot be started: .*Too many open files; again in 1 s")
    assert seen_by(address, 5) == {survivor}
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, limits)
    process.wait_for(r"worker \d+ started", times=3)
    process.signal(signal.SIGTERM)
    assert process.wait() == 0


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.deep), 2])
def test_a_model_may_start_processes(start, workers):
    """A model may start processes, as with one worker and as in `mlflow models serve`."""
    with fresh(ready_address(start("-w", str(workers), fresh=True))) as call:
        assert call(payload("parallel")) == '{"predictions": 0}'


def test_only_calls_of_the_dead_worker_fail(start, tmp_path):
    """A call in the worker that dies is UNAVAILABLE, and one in the other worker is answered."""
    process = start("-w", "2")
    address = ready_address(process)
    victim, survivor = pids(process)
    callers: dict[int, Caller] = {}
    while len(callers) < 2:
        call = fresh(address)
        callers.setdefault(json.loads(call(payload("pid")))["predictions"], call)
    held = Held(callers[survivor], tmp_path, "held")
    dying = callers[victim].raw.future(_message("exit"), timeout=30)
    assert dying.exception().code() is grpc.StatusCode.UNAVAILABLE
    held.let_go()
    assert held.result()[0] == "OK"


def _message(verb):
    from mlflow_grpc import protos

    return protos.Input(value=payload(verb)).SerializeToString()


def test_a_worker_that_cannot_load_stops_all(start, model, tmp_path):
    """The exit code is 2 with the reason in one line, and no worker is left."""
    broken = shutil.copytree(model, tmp_path / "model")
    (broken / "stepper.py").write_text("raise RuntimeError('boom')\n")
    process = start("-w", "2", "-m", str(broken))
    assert process.wait() == 2
    lines = process.errors
    assert len(lines) == 1
    assert "boom" in lines[0]
    assert process.stdout == []
    assert not [pid for pid in pids(process) if alive(pid)]


GATED = "mlmodel:tests.support.quick_stepper.Gated"


def test_a_worker_that_dies_while_loading_stops_the_start(start, tmp_path):
    """The error names the model that was being loaded when the worker died, and the exit code is 2."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    process = start("-w", "2", "-m", GATED, "--model-config", json.dumps({"gate": str(gate)}))
    process.wait_for("gated: loading now", times=2)
    gate.write_text("exit")
    assert process.wait() == 2
    (line,) = process.errors
    assert re.search(rf"worker \d cannot start: it ended with code 7 while it loaded .* from {GATED}$", line)


def test_a_replacement_that_dies_while_loading(start, tmp_path):
    """The line about a replacement that dies names the model that was being loaded. A later one loads and serves."""
    gate = tmp_path / "gate"
    process = start("-w", "2", "-m", GATED, "--model-config", json.dumps({"gate": str(gate)}))
    ready_address(process)
    os.mkfifo(gate)
    os.kill(pids(process)[0], signal.SIGKILL)
    process.wait_for("gated: loading now")
    gate.write_text("exit")
    died = rf"worker \d \(pid {pids(process)[2]}\) ended with code 7 while it loaded .* from {GATED}; a new one starts"
    process.wait_for(died)
    process.wait_for("gated: loading now", times=2)
    gate.write_text("")
    process.signal(signal.SIGTERM)
    assert process.wait() == 0


@pytest.fixture
def sigusr2_is_ignored():
    """The processes that the test starts inherit that SIGUSR2 is ignored, as those that `perf record` starts."""
    previous = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGUSR2, previous)


@pytest.mark.usefixtures("sigusr2_is_ignored")
def test_a_signal_to_all_while_workers_start(start, tmp_path):
    """Ctrl-C reaches workers that do not ignore it yet: the exit code is 0, and they print nothing. They end at once,
    whatever signals the parent of the server ignores."""
    os.mkfifo(tmp_path / "never")
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pathlib\n"
        "def wait():\n"
        "    print('starting now\\n', end='', flush=True)\n"
        "    pathlib.Path(__file__).with_name('never').read_text()\n"
        "os.register_at_fork(after_in_child=wait)\n"
    )
    paths = (str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")]))
    process = start("-w", "2", env={"PYTHONPATH": os.pathsep.join(paths)}, fresh=True)
    process.wait_for("starting now", times=2)
    process.wait_for(r"worker \d+ started", times=2)
    for pid in (*pids(process), process.popen.pid):
        status = Path(f"/proc/{pid}/status").read_text()
        held = re.search(r"^SigBlk:\s*(\w+)$", status, re.MULTILINE)
        assert held
        assert bool(int(held[1], 16) & 1 << signal.SIGINT - 1) == (pid != process.popen.pid)
        os.kill(pid, signal.SIGINT)
    assert process.wait(20) == 0
    assert "KeyboardInterrupt" not in process.output


def test_a_port_shared_by_other_workers_is_taken(start):
    """Two servers with several workers do not share a port, although both use SO_REUSEPORT."""
    first = start("-w", "2")
    port = ready_address(first).rsplit(":", 1)[1]
    second = start("-w", "2", "-p", port)
    assert second.wait() == 1
    assert "Address already in use" in second.output


def closing(port):
    """Returns True if the kernel still keeps a connection of a port that its server has closed (TIME_WAIT)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(local.endswith(f":{port:04X}") and state == "06" for _, local, _, state, *_ in rows)


def test_a_restart_on_ports_whose_connections_are_closing(start):
    """A server with any number of workers starts at once on the ports of one that has closed its connections."""
    grpc_port, http_port = free_port(), free_port()
    for workers in ("1", "2", "2", "1", "1"):
        flags = ("-w", workers, "-p", str(grpc_port), "--http-port", str(http_port), "--lame-duck", "0")
        process = start(*flags)
        with Caller(ready_address(process)) as call, socket.create_connection(("127.0.0.1", http_port)) as web:
            assert json.loads(call(payload("x")))
            web.sendall(b"GET /ping HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert web.recv(4096).startswith(b"HTTP/1.1 200")
            process.signal(signal.SIGTERM)
            assert process.wait() == 0
            while web.recv(4096):  # A client that leaves before it has read everything resets the connection.
                pass
        assert closing(http_port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_them_all(start, number, tmp_path):
    """A second signal ends all workers, however long the drain would take."""
    process = start("-w", "2", "--drain-timeout", "600")
    address = ready_address(process)
    with fresh(address) as call:
        Held(call, tmp_path)
        process.signal(signal.SIGTERM)
        process.wait_for("draining 2 workers")
        time.sleep(2 * REPEAT_LIMIT_S)  # Signals within that time are one request.
        process.signal(number)
        assert process.wait(20) == 128 + number
    assert not [pid for pid in pids(process) if alive(pid)]


def test_workers_do_not_outlive_their_supervisor(start):
    """If the supervisor is killed, the workers drain and end."""
    process = start("-w", "2")
    ready_address(process)
    process.signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert not [pid for pid in pids(process) if alive(pid)]


def test_workers_that_load_do_not_outlive_their_supervisor(start, model, tmp_path):
    """Workers end with their supervisor even if loading never ends."""
    slow, fifo = shutil.copytree(model, tmp_path / "slow"), tmp_path / "never"
    os.mkfifo(fifo)
    (slow / "stepper.py").write_text(f"print('loading now', flush=True)\nopen({str(fifo)!r}).read()\n")
    process = start("-w", "2", "-m", str(slow))
    process.wait_for("loading now", times=2)
    process.signal(signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL
    assert not [pid for pid in pids(process) if alive(pid)]
