"""Shutdown: drain, timeouts, second signals, and their effects on callers."""

import contextlib
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlflow_grpc.process import REPEAT_LIMIT_S
from tests.process.conftest import Held, payload
from tests.process.test_workers import pids
from tests.support.processes import inherited
from tests.support.servers import Caller, ready_address

CHECK = "/grpc.health.v1.Health/Check"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_idle_server_ends_at_once(start, number):
    """An idle server ends at once, with exit code 0 and no traceback."""
    with inherited(signal.SIGHUP, signal.SIG_DFL):
        process = start()
    ready_address(process)
    process.signal(number)
    assert process.wait(10) == 0
    assert "Traceback" not in process.output
    notice = (
        f"{signal.Signals(number).name}: ending once the calls in flight have ended; another signal ends the server"
    )
    assert sum(notice in line for line in process.stderr) == 1
    assert "ended with exit code 0" in process.stderr[-1]


def test_calls_in_flight_finish(start, connect, model, tmp_path):
    """SIGTERM without a lame duck phase: new calls are UNAVAILABLE, those in flight are answered, and the exit code is
    0."""
    process = start("-m", str(model))
    call = connect(process)
    held = [Held(call, tmp_path, f"call{number}") for number in range(5)]
    check: Any = call.channel.unary_unary(CHECK)
    assert check(b"") == SERVING
    process.signal(signal.SIGTERM)
    process.wait_for("draining: 5 calls in flight")
    assert call.outcome(payload("new"))[0] == "UNAVAILABLE"
    for held_call in held:
        held_call.let_go()
    for held_call in held:
        assert held_call.result()[0] == "OK"
    assert process.wait() == 0


@pytest.mark.alone
@pytest.mark.parametrize("verb", [pytest.param("hang", marks=pytest.mark.deep), "hang_spinning"])
def test_a_hung_model_does_not_delay_the_exit(start, connect, verb):
    """After the drain timeout the process ends, and callers get an error."""
    process = start("--drain-timeout", "1")
    call = connect(process)
    hung = [call.raw.future(_message(verb), timeout=60) for _ in range(3)]
    process.wait_for("^hangs$", times=3)
    began = time.monotonic()
    process.signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert time.monotonic() - began < 1 + 2 + 4
    assert {held_call.exception().code() for held_call in hung} == {grpc.StatusCode.UNAVAILABLE}
    assert "3 calls had not ended" in process.output


def _message(verb):
    from mlflow_grpc import protos

    return protos.Input(value=payload(verb)).SerializeToString()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (signal.SIGTERM, signal.SIGTERM),
        pytest.param(signal.SIGINT, signal.SIGTERM, marks=pytest.mark.deep),
        pytest.param(signal.SIGTERM, signal.SIGINT, marks=pytest.mark.deep),
    ],
)
def test_a_second_signal_forces_the_exit(start, connect, tmp_path, first, second):
    """A second signal ends the drain, with exit code 128 + signal."""
    process = start("--drain-timeout", "600")
    held = Held(connect(process), tmp_path)
    process.signal(first)
    process.wait_for("draining")
    time.sleep(2 * REPEAT_LIMIT_S)  # Signals within that time are one request.
    process.signal(second)
    assert process.wait(10) == 128 + second
    assert held.result()[0] == "UNAVAILABLE"
    assert f"ended with exit code {128 + second}" in process.stderr[-1]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.deep)])
def test_a_signal_that_comes_twice_drains(start, connect, tmp_path, workers):
    """GNU timeout signals its child, and then the child's group. Calls in flight finish, and the exit code is 0."""
    process = start("-w", str(workers))
    held = Held(connect(process), tmp_path)
    process.signal(signal.SIGTERM)
    status = Path(f"/proc/{process.popen.pid}/status")
    while int(re.findall(r"^ShdPnd:\s*(\w+)$", status.read_text(), re.MULTILINE)[0], 16):
        pass  # A pending signal would absorb the second one.
    process.signal(signal.SIGTERM)
    process.wait_for("draining: . calls in flight", times=workers)
    held.let_go()
    assert held.result()[0] == "OK"
    assert process.wait(20) == 0


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.deep), 2])
def test_a_closed_terminal_drains(start, connect, tmp_path, workers):
    """SIGHUP goes to all processes of the group, often twice. Calls in flight finish, and the exit code is 0."""
    with inherited(signal.SIGHUP, signal.SIG_DFL):
        process = start("-w", str(workers))
    call = connect(process)
    held = Held(call, tmp_path)
    for _ in range(2):
        for pid in (process.popen.pid, *pids(process)):
            with contextlib.suppress(ProcessLookupError):  # A worker without calls ends at the first signal.
                os.kill(pid, signal.SIGHUP)
        process.wait_for("draining: . calls in flight", times=workers)
    held.let_go()
    assert held.result()[0] == "OK"
    assert process.wait(20) == 0


def test_a_signal_to_all_processes_drains(start, connect, tmp_path):
    """systemd sends SIGTERM to all processes of a server, so each worker gets a second one from the supervisor. Calls in
    flight finish, and the exit code is 0."""
    process = start("-w", "2", "--lame-duck", "0.5", fresh=True)
    held = Held(connect(process), tmp_path)
    for pid in (*pids(process), process.popen.pid):
        os.kill(pid, signal.SIGTERM)
    process.wait_for("draining: . calls in flight", times=2)
    held.let_go()
    assert held.result()[0] == "OK"
    assert process.wait(20) == 0
    assert "ending at once" not in process.output


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.deep), 2])
def test_nohup(start, connect, tmp_path, workers):
    """A server started with SIGHUP ignored survives its terminal, and SIGTERM is the first signal."""
    with inherited(signal.SIGHUP, signal.SIG_IGN):
        process = start("-w", str(workers), "--drain-timeout", "600", fresh=True)
    held = Held(connect(process), tmp_path)
    ignored = re.search(r"^SigIgn:\s*(\w+)$", Path(f"/proc/{process.popen.pid}/status").read_text(), re.MULTILINE)
    assert ignored
    assert int(ignored[1], 16) & 1 << signal.SIGHUP - 1
    process.signal(signal.SIGHUP)
    process.signal(signal.SIGTERM)
    process.wait_for("draining: . calls in flight", times=workers)
    held.let_go()
    assert held.result()[0] == "OK"
    assert process.wait(20) == 0


def test_a_signal_while_loading(start, model, tmp_path):
    """SIGTERM before the model is loaded ends the server with exit code 0 and without a traceback."""
    import shutil

    slow = shutil.copytree(model, tmp_path / "slow")
    fifo = tmp_path / "never"
    os.mkfifo(fifo)
    (slow / "stepper.py").write_text(f"print('loading now', flush=True)\nopen({str(fifo)!r}).read()\n")
    process = start("-m", str(slow))
    process.wait_for("loading now")
    process.signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert "Traceback" not in process.output


def test_health_answers_while_loading(start, model, tmp_path):
    """Until the model is loaded, the port is open, health is NOT_SERVING, and predict is UNAVAILABLE."""
    import shutil

    from tests.support.servers import free_port

    slow, port, fifo = shutil.copytree(model, tmp_path / "slow"), free_port(), tmp_path / "gate"
    os.mkfifo(fifo)
    code = (slow / "stepper.py").read_text()
    (slow / "stepper.py").write_text(f"print('loading now', flush=True)\nopen({str(fifo)!r}).read()\n{code}")
    process = start("-m", str(slow), "-p", str(port))
    process.wait_for("loading now")
    with Caller(f"127.0.0.1:{port}") as call:
        check: Any = call.channel.unary_unary(CHECK)
        assert check(b"", timeout=10) == NOT_SERVING
        assert call.outcome(payload("x"))[0] == "UNAVAILABLE"
        fifo.write_text("go")
        ready_address(process)
        assert check(b"", timeout=10) == SERVING
        assert call(payload("x")) == '{"predictions": ["x"]}'


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_to_forked_processes_do_not_end_the_server(start, connect, number):
    """Forked processes end by their own signals, as `multiprocessing.Pool` expects, and the server continues."""
    process = start()
    call = connect(process)
    children = [json.loads(call(payload("fork")))["predictions"] for _ in range(10)]
    for child in children:
        os.kill(child, number)
        assert json.loads(call(payload("reap", str(child))))["predictions"] == number
    assert call(payload("x")) == '{"predictions": ["x"]}'
    process.signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert "ending at once" not in process.output


def test_the_time_limit_of_the_server(start, connect):
    """A call over --timeout is DEADLINE_EXCEEDED, where MLflow's server answers 504, and other calls continue."""
    process = start("--timeout", "0.3")
    call = connect(process)
    assert call.outcome(payload("hang"))[0] == "DEADLINE_EXCEEDED"
    assert call(payload("x")) == '{"predictions": ["x"]}'


def test_the_lame_duck(start, connect):
    """After SIGTERM calls are still answered while health is NOT_SERVING. A second signal ends the server at once."""
    process = start("--lame-duck", "300")
    call = connect(process)
    check: Any = call.channel.unary_unary(CHECK)
    process.signal(signal.SIGTERM)
    process.wait_for("lame duck: NOT_SERVING, and calls are answered, for 300 s")
    assert check(b"") == NOT_SERVING
    for _ in range(20):
        assert call(payload("x")) == '{"predictions": ["x"]}'
    process.signal(signal.SIGINT)
    assert process.wait(10) == 128 + signal.SIGINT


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.deep)])
def test_ctrl_c_has_no_lame_duck(start, workers):
    """Ctrl-C and a closed terminal skip the lame duck phase, because the person at the terminal should not wait."""
    process = start("-w", str(workers), "--lame-duck", "300")
    ready_address(process)
    process.signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert "lame duck" not in process.output
