"""Thousands of connections to the HTTP port that are silent, slow or incomplete do not affect other callers."""

import resource
import socket
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from mlflow_grpc.http.connections import HEADER_TIMEOUT_S
from tests.support.servers import Caller, ready_address, start_server

pytestmark = [pytest.mark.stress, pytest.mark.timeout(600)]

CONNECTIONS = 10_000
FILES = 2 * CONNECTIONS
"""Number of files that the processes may have to open."""

OPENINGS = [
    b"",
    b"POST /invocations HTTP/1.1\r\nhost: x\r\n",
    b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nx",
    b"POST /invocations HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nx",
    b"PO",
]
"""Beginnings of requests after which the server waits; it would close a connection that sends something else."""

CALLS = 300


def latencies_ms(call) -> list[float]:
    """Returns the durations of sequential calls."""
    taken = []
    for _ in range(CALLS):
        started = time.perf_counter()
        assert call('{"inputs": ["a"]}') == '{"predictions": ["a"]}'
        taken.append((time.perf_counter() - started) * 1000)
    return taken


@pytest.fixture
def many_files():
    """Lets this process and the server that it starts open as many files as the test needs; skips if they may not.

    A server accepts as many connections as half of its soft limit, which it inherits.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.skip(f"the hard limit of open files is {hard}, and {CONNECTIONS} connections need {FILES}: ulimit -Hn")
    raised = soft if soft == resource.RLIM_INFINITY else max(soft, FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def established(port: int) -> int:
    """Returns the number of connections that a server has accepted on a port of 127.0.0.1, according to the kernel."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    address, is_established = f"0100007F:{port:04X}", "01"
    return sum(row[1] == address and row[3] == is_established and row[9] != "0" for row in rows)


def wait_until(condition) -> None:
    """Waits until a condition holds, for less time than the server waits for headers."""
    deadline = time.monotonic() + HEADER_TIMEOUT_S / 2
    while not condition():
        assert time.monotonic() < deadline


def post_a_row(session: requests.Session, port: int) -> None:
    response = session.post(f"http://127.0.0.1:{port}/invocations", data='{"inputs": ["a"]}', timeout=30)
    assert response.json() == {"predictions": ["a"]}


def test_ten_thousand_connections(many_files):
    """10,000 connections are open; gRPC calls and health checks take about as long as before, and HTTP answers too."""
    with (
        start_server(
            "-m", "mlmodel:tests.support.quick_stepper.Stepper", "--http-port", "0", "--threads", "2", fresh=True
        ) as server,
        ExitStack() as stack,
        requests.Session() as session,
    ):
        address = ready_address(server)
        port = int(server.wait_for(r"HTTP on http://127\.0\.0\.1:(\d+);")[1])
        call = stack.enter_context(Caller(address))
        health: Any = call.channel.unary_unary("/grpc.health.v1.Health/Check")
        before = latencies_ms(call)
        post_a_row(session, port)
        for number in range(CONNECTIONS - 1):  # The session has the last one.
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            connection.sendall(OPENINGS[number % len(OPENINGS)])
        wait_until(lambda: established(port) == CONNECTIONS)
        during = latencies_ms(call)
        started = time.perf_counter()
        assert health(b"", timeout=1) == b"\x08\x01"
        health_ms = (time.perf_counter() - started) * 1000
        post_a_row(session, port)
        quantiles = {
            name: statistics.quantiles(taken, n=100) for name, taken in (("before", before), ("during", during))
        }
        print(f"{CONNECTIONS} connections; p50 and p99 in ms:", {name: (q[49], q[98]) for name, q in quantiles.items()})
        print(f"health: {health_ms:.1f} ms")
        assert quantiles["during"][49] < 5 * quantiles["before"][49]
        assert quantiles["during"][98] < 500
        assert health_ms < 500
