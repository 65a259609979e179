"""A real Envoy with deploy/envoy/envoy.yaml, in front of servers on free ports."""

import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import requests
import yaml

from tests.support.servers import ROOT, Process, free_port

FILE = ROOT / "deploy" / "envoy" / "envoy.yaml"
UP_LIMIT_S = 30.0


def configuration(ports: Sequence[int], *, port: int, admin_port: int, descriptor_set: Path | None) -> dict[str, Any]:
    """Returns the configuration with the four values changed that docs/envoy.md lists.

    Args:
        ports: Ports of the servers on 127.0.0.1.
        port: Port for callers.
        admin_port: Port of the admin interface.
        descriptor_set: Descriptor set for JSON; None removes the filter for JSON.
    """
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    listener, cluster = loaded["static_resources"]["listeners"][0], loaded["static_resources"]["clusters"][0]
    listener["address"] = _socket_address(port)
    loaded["admin"]["address"] = _socket_address(admin_port)
    (endpoints,) = cluster["load_assignment"]["endpoints"]
    endpoints["lb_endpoints"] = [{"endpoint": {"address": _socket_address(server_port)}} for server_port in ports]
    filters = manager(loaded)["http_filters"]
    (transcoder,) = [entry for entry in filters if entry["name"] == "envoy.filters.http.grpc_json_transcoder"]
    if descriptor_set is None:
        filters.remove(transcoder)
    else:
        transcoder["typed_config"]["proto_descriptor"] = str(descriptor_set)
    return loaded


def _socket_address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def manager(loaded: dict[str, Any]) -> Any:
    """Returns the settings of the HTTP connection manager in a configuration."""
    return loaded["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]


def without_retries(loaded: dict[str, Any]) -> None:
    """Removes retries and outlier detection, so that callers see every call that a server loses."""
    (host,) = manager(loaded)["route_config"]["virtual_hosts"]
    del host["routes"][0]["route"]["retry_policy"]
    del loaded["static_resources"]["clusters"][0]["outlier_detection"]


class Envoy:
    """A running Envoy."""

    def __init__(
        self, ports: Sequence[int], folder: Path, *, descriptor_set: Path | None = None, retries: bool = True
    ) -> None:
        port, self._admin_port = free_port(), free_port()
        loaded = configuration(ports, port=port, admin_port=self._admin_port, descriptor_set=descriptor_set)
        if not retries:
            without_retries(loaded)
        file = folder / "envoy.yaml"
        file.write_text(yaml.safe_dump(loaded))
        command = [str(Path(sys.executable).parent / "envoy"), "-c", str(file), "--log-level", "warning"]
        self.process = Process([*command, "--use-dynamic-base-id"])
        self.address = f"127.0.0.1:{port}"

    def admin(self, path: str) -> str:
        """Returns a page of the admin interface; empty before it listens."""
        try:
            return str(requests.get(f"http://127.0.0.1:{self._admin_port}/{path}", timeout=5).text)
        except requests.ConnectionError:
            return ""

    def count(self, name: str) -> int:
        """Returns a counter of the cluster, such as `upstream_rq_retry`."""
        match = re.search(rf"^cluster\.models\.{re.escape(name)}: (\d+)$", self.admin("stats"), re.MULTILINE)
        return int(match[1]) if match else 0

    def servers_up(self) -> int:
        """Returns the number of servers that Envoy sends calls to."""
        return self.admin("clusters").count("health_flags::healthy")

    def wait_until_up(self, count: int) -> None:
        """Waits until Envoy sends calls to that many servers."""
        self.wait_until(lambda: self.servers_up() == count)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Waits until a condition holds."""
        deadline = time.monotonic() + UP_LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, f"{self.admin('clusters')}\n{self.process.output}"
            time.sleep(0.05)
