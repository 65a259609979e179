"""HAProxy and Envoy in front of two servers, as their documentation configures them."""

import contextlib
import csv
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.envoy import Envoy
from tests.support.servers import Process, free_port

UP_LIMIT_S = 30.0

HAPROXY = """
global
    stats socket {socket}
defaults
    mode tcp
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    retries 3
    option redispatch 1
    default-server check inter 500ms fall 2 rise 2
frontend calls
    bind 127.0.0.1:{port}
    default_backend servers
backend servers
    balance roundrobin
{servers}
"""


class Balancer:
    """A running load balancer; `servers_up` returns the number of servers that it sends calls to."""

    def __init__(self, process: Process, port: int, servers_up: Callable[[], int]) -> None:
        self.process = process
        self.address = f"127.0.0.1:{port}"
        self._servers_up = servers_up

    def wait_until_up(self, count: int) -> None:
        """Waits until the balancer sends calls to that many servers."""
        deadline = time.monotonic() + UP_LIMIT_S
        while self._servers_up() != count:
            assert time.monotonic() < deadline, f"the balancer has not seen {count} servers\n{self.process.output}"
            time.sleep(0.05)


def start_haproxy(ports: Sequence[int], folder: Path) -> Balancer:
    """Starts a balancer of connections, which only checks that it can connect to a server."""
    servers = "\n".join(f"    server s{port} 127.0.0.1:{port}" for port in ports)
    port, file, path = free_port(), folder / "haproxy.cfg", folder / "stats"
    file.write_text(HAPROXY.format(port=port, servers=servers, socket=path))
    program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    assert program is not None, "HAProxy is not installed: apt-get install haproxy"

    def servers_up() -> int:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as stats:
            stats.connect(str(path))
            stats.sendall(b"show stat\n")
            with stats.makefile() as table:
                rows = csv.DictReader(table)
                return sum(row["svname"].startswith("s") and row["status"].startswith("UP") for row in rows)
        return 0

    return Balancer(Process([program, "-db", "-f", str(file)]), port, servers_up)


def start_envoy(ports: Sequence[int], folder: Path) -> Envoy:
    """Starts Envoy with deploy/envoy/envoy.yaml, but without its retries, which would hide calls that a server loses."""
    return Envoy(ports, folder, retries=False)
