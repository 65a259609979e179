"""gRPC clients without a proxy, which get their servers from a control plane (docs/envoy.md)."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from mlflow_grpc_client import Client

from tests.process.conftest import payload
from tests.restarts.load import Load
from tests.support.servers import ROOT, Caller, Process, free_port, ready_address
from tests.support.xds import SERVICE, ControlPlane, bootstrap

pytestmark = pytest.mark.slow

ADDRESS = f"xds:///{SERVICE}"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
"""Serialized states of the health service."""


@dataclass
class Fleet:
    """Two servers and the control plane that announces them."""

    servers: list[Process]
    ports: list[int]
    plane: ControlPlane


@pytest.fixture
def fleet(start, tmp_path, monkeypatch) -> Iterator[Fleet]:
    """Two servers with a lame duck phase, which clients of this process find by the control plane."""
    ports = [free_port(), free_port()]
    servers = [start("-p", str(port), env={"MLFLOW_GRPC_LAME_DUCK": "3"}) for port in ports]
    for server in servers:
        ready_address(server)
    with ControlPlane(ports) as plane:
        monkeypatch.setenv("GRPC_XDS_BOOTSTRAP", str(bootstrap(tmp_path, plane)))
        yield Fleet(servers, ports, plane)


def shares(call: Callable[[], Any]) -> Counter[Any]:
    """Returns how many of 200 calls were answered by each server, once the channel has connections to both."""
    first = call()
    assert any(call() != first for _ in range(10_000))
    return Counter(call() for _ in range(200))


def test_two_servers_share_the_calls(fleet):
    """A plain gRPC channel sends each server half of its calls, and so does the project's client."""
    pids = [json.dumps({"predictions": server.popen.pid}) for server in fleet.servers]
    with Caller(ADDRESS) as call:
        counts = shares(lambda: call(payload("pid")))
    assert sorted(counts) == sorted(pids)
    assert min(counts.values()) >= 90
    with Client(ADDRESS) as client:
        answered = shares(lambda: client.predict({"inputs": ["pid"]}))
    assert sorted(answered) == sorted(server.popen.pid for server in fleet.servers)
    assert min(answered.values()) >= 90


def test_the_control_plane_decides_who_is_called(fleet):
    """A channel leaves a server that the control plane no longer announces, although it runs and answers."""
    with Caller(ADDRESS) as call:
        assert len({call(payload("pid")) for _ in range(20)}) == 2
        fleet.plane.announce(fleet.ports[1:])
        remaining = json.dumps({"predictions": fleet.servers[1].popen.pid})
        assert any({call(payload("pid")) for _ in range(20)} == {remaining} for _ in range(100))
        fleet.plane.announce(fleet.ports)
        assert any(len({call(payload("pid")) for _ in range(20)}) == 2 for _ in range(100))
    with Caller(f"127.0.0.1:{fleet.ports[0]}") as call:
        assert call(payload("a")) == json.dumps({"predictions": ["a"]})


@pytest.mark.deep
def test_no_call_fails_while_a_server_drains(fleet):
    """The control plane removes a server that is NOT_SERVING; no call of clients without retries fails."""
    ending, staying = fleet.servers
    load = Load(ADDRESS, rate=60.0, long_every=1 << 30)
    calling = threading.Thread(target=lambda: asyncio.run(load.run()))
    calling.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{fleet.ports[0]}") as channel:
            watch: Any = channel.unary_stream("/grpc.health.v1.Health/Watch")
            states = watch(b"", timeout=60)
            assert next(states) == SERVING
            ending.signal(signal.SIGTERM)
            assert next(states) == NOT_SERVING
            fleet.plane.announce(fleet.ports[1:])
            states.cancel()
        assert ending.wait() == 0
        with Caller(ADDRESS) as call:
            answered = {call(payload("pid")) for _ in range(50)}
    finally:
        load.is_over = True
        calling.join()
    assert load.calls > 100
    assert not load.failures
    assert answered == {json.dumps({"predictions": staying.popen.pid})}


def test_the_command_of_the_page(fleet, tmp_path):
    """The client's command reads the file in docs/envoy.md with the address of the control plane changed."""
    section = (ROOT / "docs" / "envoy.md").read_text().partition("## gRPC without a proxy")[2]
    file, command = re.findall(r"```(?:json|sh)\n(.*?)```", section, re.S)
    written = json.loads(file)
    written["xds_servers"][0]["server_uri"] = fleet.plane.address
    (tmp_path / "bootstrap.json").write_text(json.dumps(written))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ended = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, json.loads(ended.stdout)) == (0, {"predictions": ["a"]}), ended.stderr
