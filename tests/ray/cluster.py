"""A cluster of Ray on free ports of 127.0.0.1, driven by the REST API of its dashboard.

Some of Ray's ports listen on all interfaces, whatever its options say: those of the replicas and of its daemons.
"""

import contextlib
import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import grpc
import requests

from tests.support.scrapes import Scrape
from tests.support.servers import Process, environment, free_port

BLOCKS = "This command will now block"
"""Line of `ray start` when a node runs."""

LIMIT_S = 120.0
"""Maximum time for a deployment, in seconds; it starts processes that import MLflow."""


class Cluster:
    """A running cluster of one node, which has a GPU on paper. Ray Serve is started by the first deployment.

    Args:
        working: Working directory of all processes.
        through_haproxy: True for HAProxy in front of the replicas, False for Ray Serve's own proxy.

    """

    def __init__(self, working: Path, *, through_haproxy: bool) -> None:
        # The path of a socket has at most 107 characters, so that pytest's folders are too deep.
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self._working = working
        self._dashboard, self.port, self._head = free_port(), free_port(), free_port()
        self._agent = free_port()
        self.http_port = free_port()
        self._through_haproxy = through_haproxy
        haproxy = self._folder / "haproxy"
        haproxy.mkdir()
        self._env = {
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_SERVE_ENABLE_HA_PROXY": str(int(through_haproxy)),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
            "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
            # By default, a replica that stops is kept for 30 s.
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
        }
        self._process = self._start_node(
            *("--head", "--num-cpus", "8", "--num-gpus", "1", "--dashboard-host", "127.0.0.1"),
            *("--temp-dir", str(self._folder)),
            *(f"--port={self._head}", f"--dashboard-port={self._dashboard}"),
            *(f"--ray-client-server-port={free_port()}", f"--metrics-export-port={self._agent}"),
        )
        try:
            self._process.wait_for(BLOCKS, timeout_s=LIMIT_S)
            self.wait_until(self._answers)
        except BaseException:
            self.stop()
            raise

    def _start_node(self, *flags: str) -> Process:
        """Starts a node."""
        command = [
            str(Path(sys.executable).with_name("ray")),
            *("start", "--block", "--node-ip-address", "127.0.0.1", "--object-store-memory", "80000000"),
            f"--dashboard-agent-listen-port={free_port()}",
            # 0 leaves the ports of workers to the system; by default they are those between 10,002 and 19,999.
            *("--min-worker-port", "0", "--max-worker-port", "0"),
            *flags,
        ]
        return Process(command, env=self._env, cwd=self._working)

    @contextlib.contextmanager
    def second_node(self, resource: str) -> Iterator[None]:
        """Adds a node with one CPU and one unit of a resource, until the block ends."""
        flags = (f"--address=127.0.0.1:{self._head}", "--num-cpus", "1", "--resources", json.dumps({resource: 1}))
        process = self._start_node(*flags, f"--metrics-export-port={free_port()}")
        try:
            process.wait_for(BLOCKS, timeout_s=LIMIT_S)
            yield
        finally:
            process.signal(signal.SIGTERM)
            process.wait(60)

    def run(self, *command: str) -> str:
        """Runs a command of this environment as a user of the cluster, and returns what it prints."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        dashboard = f"http://127.0.0.1:{self._dashboard}"
        env = environment({**self._env, "PATH": path, "RAY_DASHBOARD_ADDRESS": dashboard})
        ended = subprocess.run(
            command, cwd=self._working, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def scrape(self) -> Scrape:
        """Returns the metrics of the first node's agent."""
        return Scrape(f"http://127.0.0.1:{self._agent}")

    @property
    def nodes_file(self) -> Path:
        """The file in which Ray lists its agents for Prometheus."""
        return self._folder / "prom_metrics_service_discovery.json"

    @property
    def address(self) -> str:
        """Address of the gRPC port."""
        return f"127.0.0.1:{self.port}"

    def configuration(self, *applications: dict[str, Any]) -> dict[str, Any]:
        """Returns a configuration of Ray Serve with applications of this project."""
        return {
            "proxy_location": "HeadOnly",
            "http_options": {"host": "127.0.0.1", "port": self.http_port},
            "grpc_options": {
                "port": self.port,
                "grpc_servicer_functions": ["mlflow_grpc.ray.add_to_server"],
                "enable_reflection": False,
            },
            "applications": [
                {"import_path": "mlflow_grpc.ray:app", "route_prefix": f"/{application['name']}", **application}
                for application in applications
            ],
        }

    def put(self, *applications: dict[str, Any]) -> None:
        """Sends a configuration; returns before it is in effect."""
        answer = requests.put(self._url, json=self.configuration(*applications), timeout=30)
        assert answer.ok, answer.text

    def with_ports(self, configuration: dict[str, Any]) -> dict[str, Any]:
        """Returns a configuration with the ports of this cluster, and otherwise as it is in a file."""
        changed = copy.deepcopy(configuration)
        changed["http_options"] = {**changed["http_options"], "host": "127.0.0.1", "port": self.http_port}
        changed["grpc_options"]["port"] = self.port
        return changed

    def deploy(self, *applications: dict[str, Any]) -> None:
        """Sends a configuration, and waits until its applications run."""
        self.put(*applications)
        self.wait_for(*(application["name"] for application in applications))

    def wait_for(self, *applications: str) -> None:
        """Waits until these applications run, and no others."""
        names = set(applications)
        self.wait_until(lambda: self._are_running(names))
        self.wait_until(lambda: all(map(self.is_reached, names)))

    def is_reached(self, name: str) -> bool:
        """Returns True if calls get to an application as they will: HAProxy's backup is Ray Serve's own proxy.

        Ray Serve's wrapper adds a trailer.
        """
        with grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
            call = check.future(b"", timeout=10, metadata=(("application", name),))
            if call.exception() is not None:
                return False
            return self._through_haproxy != ("request_id" in dict(call.trailing_metadata()))

    def status(self, name: str) -> tuple[str, str]:
        """Returns the status of an application and its message."""
        application = self._details()["applications"].get(name, {})
        return application.get("status", ""), application.get("message", "")

    def replicas(self, name: str, state: str = "RUNNING") -> list[int]:
        """Returns the ids of the processes of an application's replicas."""
        return [replica.get("pid", 0) for replica in self._replicas(name) if replica["state"] == state]

    def nodes(self, name: str) -> list[str]:
        """Returns the nodes of an application's replicas that run."""
        return [replica["node_id"] for replica in self._replicas(name) if replica["state"] == "RUNNING"]

    def nodes_with(self, resource: str) -> list[str]:
        """Returns the nodes that have a resource."""
        answer = requests.get(f"http://127.0.0.1:{self._dashboard}/api/v0/nodes?detail=1", timeout=30)
        nodes = answer.json()["data"]["result"]["result"]
        return [node["node_id"] for node in nodes if node["state"] == "ALIVE" and resource in node["resources_total"]]

    def _replicas(self, name: str) -> list[dict[str, Any]]:
        deployments = self._details()["applications"][name]["deployments"].values()
        return [replica for deployment in deployments for replica in deployment["replicas"]]

    def line(self, request_id: str) -> dict[str, Any]:
        """Waits for the log line of a call, and returns it."""
        found: list[str] = []

        def is_written() -> bool:
            found[:] = [line for line in self.logs().splitlines() if f'"{request_id}"' in line]
            return bool(found)

        self.wait_until(is_written, 30)
        line: dict[str, Any] = json.loads(found[0])
        return line

    def resources(self, name: str) -> dict[str, float]:
        """Returns what each replica of an application occupies."""
        (deployment,) = self._details()["applications"][name]["deployments"].values()
        resources: dict[str, float] = deployment["required_resources"]
        return resources

    def refusals(self) -> int:
        """Returns the number of calls that replicas have refused and logged."""
        return sum(int(calls) for calls in re.findall(r'"message":"refused","calls":(\d+)', self.logs()))

    def logs(self) -> str:
        """Returns what the processes of the cluster have written to stderr."""
        files = (self._folder / "session_latest" / "logs").glob("*.err")
        return "\n".join(path.read_text(errors="replace") for path in files)

    def wait_until(self, condition: Callable[[], object], timeout_s: float = LIMIT_S) -> None:
        """Waits until a condition holds."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"{self._last}\n{self.logs()[-5000:]}"
            time.sleep(0.2)

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._dashboard}/api/serve/applications/"

    _last: Any = None

    def _details(self) -> Any:
        answer = requests.get(self._url, timeout=30)
        answer.raise_for_status()
        self._last = answer.json()
        return self._last

    def _answers(self) -> bool:
        try:
            return bool(self._details())
        except requests.RequestException:
            return False

    def _are_running(self, names: set[str]) -> bool:
        applications = self._details()["applications"]
        statuses = {name: application["status"] for name, application in applications.items()}
        assert "DEPLOY_FAILED" not in statuses.values(), applications
        return statuses == dict.fromkeys(names, "RUNNING") and not any(
            self.replicas(name, "STOPPING") for name in names
        )

    def stop(self) -> None:
        """Ends all processes of the cluster; the command that started them does so on SIGTERM."""
        if self._process.popen.poll() is None:
            with contextlib.suppress(requests.RequestException):  # Otherwise, the end of the actors takes 30 s.
                requests.delete(self._url, timeout=30)
                self.wait_until(lambda: not self._details()["applications"], 60)
            self._process.signal(signal.SIGTERM)
            self._process.wait(60)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
