"""HAProxy and Envoy in front of two servers, as their documentation configures them."""

import contextlib
import csv
import shutil
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import requests

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

ENVOY = """
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
static_resources:
  listeners:
    - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: calls
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - match: {{prefix: "/"}}
                          route: {{cluster: servers, timeout: 0s}}
  clusters:
    - name: servers
      connect_timeout: 1s
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {{http2_protocol_options: {{}}}}
      health_checks:
        # Where all servers are unhealthy Envoy calls each of them: one check that a busy machine delays may not do.
        - {{timeout: 2s, interval: 0.5s, no_traffic_interval: 0.5s, unhealthy_threshold: 2, healthy_threshold: 1,
           grpc_health_check: {{}}}}
      load_assignment:
        cluster_name: servers
        endpoints:
          - lb_endpoints:
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


def start_envoy(ports: Sequence[int], folder: Path) -> Balancer:
    """Starts a balancer of calls, which uses the health service of each server."""
    servers = "\n".join(
        f"              - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}"
        for port in ports
    )
    port, admin, file = free_port(), free_port(), folder / "envoy.yaml"
    file.write_text(ENVOY.format(port=port, admin=admin, servers=servers))
    program = Path(sys.executable).parent / "envoy"

    def servers_up() -> int:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{admin}/clusters", timeout=5).text.count("health_flags::healthy")
        return 0

    command = [str(program), "-c", str(file), "--log-level", "warning", "--use-dynamic-base-id"]
    return Balancer(Process(command), port, servers_up)
