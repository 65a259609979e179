"""Thousands of connections to the HTTP port that are silent, slow or incomplete do not affect other callers."""

import resource
import socket
import statistics
import time
from contextlib import ExitStack
from typing import Any

import pytest
import requests

from mlflow_grpc.http.listener import max_connections
from tests.support.servers import Caller, ready_address, start_server

pytestmark = [pytest.mark.stress, pytest.mark.timeout(600)]

CONNECTIONS = 10_000
OPENINGS = [
    b"",
    b"POST /invocations HTTP/1.1\r\nhost: x\r\n",
    b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nx",
    b"POST /invocations HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nx",
    b"\x16\x03\x01",
]
CALLS = 300


def latencies_ms(call) -> list[float]:
    """Returns the durations of sequential calls."""
    taken = []
    for _ in range(CALLS):
        started = time.perf_counter()
        assert call('{"inputs": ["a"]}') == '{"predictions": ["a"]}'
        taken.append((time.perf_counter() - started) * 1000)
    return taken


def test_ten_thousand_connections():
    """gRPC calls and health checks take about as long as before, and HTTP answers the next callers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CONNECTIONS + 1000:
        pytest.skip(f"this process may open {hard} files only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, CONNECTIONS + 1000), hard))
    with (
        start_server(
            "-m", "mlmodel:tests.support.quick_stepper.Stepper", "--http-port", "0", "--threads", "2"
        ) as server,
        ExitStack() as stack,
    ):
        address = ready_address(server)
        port = int(server.wait_for(r"HTTP on http://127\.0\.0\.1:(\d+);")[1])
        call = stack.enter_context(Caller(address))
        health: Any = call.channel.unary_unary("/grpc.health.v1.Health/Check")
        before = latencies_ms(call)
        opened = min(CONNECTIONS, max_connections() - 100)
        for number in range(opened):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            connection.sendall(OPENINGS[number % len(OPENINGS)])
        during = latencies_ms(call)
        started = time.perf_counter()
        assert health(b"", timeout=1) == b"\x08\x01"
        health_ms = (time.perf_counter() - started) * 1000
        url = f"http://127.0.0.1:{port}/invocations"
        assert requests.post(url, data='{"inputs": ["a"]}', timeout=30).json() == {"predictions": ["a"]}
        quantiles = {
            name: statistics.quantiles(taken, n=100) for name, taken in (("before", before), ("during", during))
        }
        print(f"{opened} connections; p50 and p99 in ms:", {name: (q[49], q[98]) for name, q in quantiles.items()})
        print(f"health: {health_ms:.1f} ms")
        assert quantiles["during"][49] < 5 * quantiles["before"][49]
        assert quantiles["during"][98] < 500
        assert health_ms < 500
